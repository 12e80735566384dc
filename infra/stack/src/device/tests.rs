use tokio::join;
use waypost_schemas::frame::{Down, Up};

use super::{server::Server, *};

/// How long anything is waited for at most.
const PATIENCE: Duration = Duration::from_secs(30);

fn device(server: &Server) -> Device {
    let options = Options {
        url: server.url.clone(),
        token: "t".parse().unwrap(),
        from: Some(Begin::Start),
        mark: None,
    };
    Device::new(options, Clock::system()).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Lets a device run beside what a test does with the server; what happened to the device, in short words.
async fn beside<T>(device: &mut Device, test: impl Future<Output = T>) -> (T, Vec<String>) {
    let mut happened = Vec::new();
    let run = async {
        loop {
            match device.next().await {
                Ok(Event::Entry(entry)) => {
                    happened.push(entry.text("body").unwrap().to_owned());
                    device.acknowledge(entry.offset);
                }
                Ok(Event::Accepted { positions, .. }) => happened.push(format!("accepted {positions:?}")),
                Ok(Event::Refused { code, .. }) => happened.push(format!("refused {code}")),
                Ok(Event::Disconnected { .. }) => happened.push("disconnected".to_owned()),
                Ok(Event::Connected { .. } | Event::CaughtUp { .. }) => {}
                Err(error) => {
                    happened.push(error.to_string());
                    std::future::pending::<()>().await;
                }
            }
        }
    };
    let done = tokio::select! {
        done = tokio::time::timeout(PATIENCE, test) => done.expect("in time"),
        () = run => unreachable!("it runs on"),
    };
    (done, happened)
}

#[tokio::test]
async fn a_device_that_is_cut_off_resumes_and_has_each_entry_once() {
    let server = Server::start().await;
    let mut device = device(&server);
    let test = async {
        let mut first = server.accept().await;
        assert_eq!(first.bearer, "Bearer t");
        let hello = first.welcome("l", None).await;
        assert_eq!(hello, Up::Hello { from: Some(Begin::Start), offset: None, log: None });
        first.offer(3, "a").await;
        first.offer(5, "b").await;
        assert_eq!(first.hear().await, Some(Up::Ack { upto: 5 }));
        first.offer(8, "c").await;
        // Cut before the acknowledgement of the third is read.
        assert_eq!(first.hear().await, Some(Up::Ack { upto: 8 }));
        drop(first);
        let mut second = server.accept().await;
        let resume = Up::Hello { from: Some(Begin::Resume), offset: Some(8), log: Some("l".into()) };
        assert_eq!(second.welcome("l", Some(5)).await, resume);
        second.offer(8, "c").await;
        second.offer(9, "d").await;
        assert_eq!(second.hear().await, Some(Up::Ack { upto: 9 }));
    };
    let ((), happened) = beside(&mut device, test).await;
    assert_eq!(happened, ["a", "b", "c", "disconnected", "d"]);
    assert_eq!(device.mark(), Some(Mark { log: "l".to_owned(), offset: 9 }));
}

#[tokio::test]
async fn what_was_not_answered_is_sent_again_on_the_next_connection_with_its_id() {
    let server = Server::start().await;
    let mut device = device(&server);
    device.send(user("bob"), "one").unwrap();
    device.send(user("bob"), "two").unwrap();
    let test = async {
        let mut first = server.accept().await;
        first.welcome("l", None).await;
        let (one, two) = (first.hear().await.unwrap(), first.hear().await.unwrap());
        let id = |frame: &Up| match frame {
            Up::Send { id, .. } => id.clone(),
            other => panic!("{other:?}"),
        };
        first.accepted(&id(&one), "messages/3/7").await;
        drop(first);
        let mut second = server.accept().await;
        second.welcome("l", None).await;
        let again = second.hear().await.unwrap();
        assert_eq!(id(&again), id(&two));
        assert!(
            matches!(&again, Up::Send { settled: Some(settled), .. } if *settled == id(&one)),
            "{again:?}"
        );
        let (code, detail) = ("bad_body".to_owned(), "it is too long".to_owned());
        second.say(&Down::Refused { id: Some(id(&two)), code, detail, retry_after: None, time: None }).await;
        second.say(&Down::CaughtUp { offset: 0 }).await;
        second
    };
    let (second, happened) = beside(&mut device, test).await;
    let ((), more) = beside(&mut device, async {
        drop(second);
        server.refuse(503, "", Some(0)).await;
        server.accept().await.welcome("l", None).await;
    })
    .await;
    let happened = [happened, more].concat();
    assert_eq!(
        happened,
        [r#"accepted ["messages/3/7"]"#, "disconnected", "refused bad_body", "disconnected", "disconnected"]
    );
    assert_eq!(device.unanswered(), 0);
}

#[tokio::test]
async fn a_device_that_is_replaced_or_denied_does_not_come_back() {
    let server = Server::start().await;
    let test = async {
        let mut first = server.accept().await;
        first.welcome("l", None).await;
        first.say(&Down::Goodbye { code: "replaced".into(), retry_after: None }).await;
    };
    let mut replaced = device(&server);
    let ((), ended) = join!(test, async {
        assert!(matches!(replaced.next().await, Ok(Event::Connected { .. })));
        assert!(matches!(replaced.next().await, Err(Error::Replaced)));
    });
    let problem = r#"{"code": "token_expired", "detail": "the token has expired"}"#;
    let mut denied = device(&server);
    let ((), error) = join!(server.refuse(401, problem, None), denied.next());
    match error {
        Err(Error::Denied(problem)) => assert_eq!((problem.status, &*problem.code), (401, "token_expired")),
        other => panic!("{other:?}"),
    }
    denied.set_token(&"u".parse().unwrap()).unwrap();
    let (connection, event) = join!(
        async {
            let mut connection = server.accept().await;
            connection.welcome("l", None).await;
            connection
        },
        denied.next()
    );
    assert_eq!(connection.bearer, "Bearer u");
    assert!(matches!(event, Ok(Event::Connected { .. })), "{event:?} {ended:?}");
}

#[tokio::test]
async fn a_goodbye_is_waited_out_as_long_as_it_asks() {
    let server = Server::start().await;
    let mut device = device(&server);
    let test = async {
        let mut first = server.accept().await;
        first.welcome("l", None).await;
        first.say(&Down::Goodbye { code: "stopping".into(), retry_after: Some(3_600) }).await;
    };
    let ((), again_in) = join!(test, async {
        loop {
            if let Event::Disconnected { why, again_in } = device.next().await.unwrap() {
                assert!(why.contains("stopping"), "{why}");
                return again_in;
            }
        }
    });
    assert!(again_in >= Duration::from_hours(1), "{again_in:?}");
}

#[tokio::test]
async fn the_last_word_is_said_before_the_connection_is_closed() {
    let server = Server::start().await;
    let mut device = device(&server);
    let test = async {
        let mut connection = server.accept().await;
        connection.welcome("l", None).await;
        connection.offer(4, "a").await;
        connection
    };
    let leave = async {
        loop {
            if let Event::Entry(entry) = device.next().await.unwrap() {
                device.acknowledge(entry.offset);
                device.read(&entry);
                break;
            }
        }
        device.close(PATIENCE).await;
    };
    let hear = async {
        let mut connection = test.await;
        let mut heard = Vec::new();
        while let Some(frame) = connection.hear().await {
            if frame == Up::Ping {
                connection.offer(5, "too late").await;
                connection.say(&Down::Pong).await;
            }
            heard.push(frame);
        }
        heard
    };
    let (heard, ()) = join!(hear, leave);
    assert_eq!(heard, [Up::Ack { upto: 4 }, Up::Read { upto: 4 }, Up::Ping]);
}

#[tokio::test]
async fn a_server_that_speaks_otherwise_is_no_reason_to_stop() {
    let server = Server::start().await;
    let mut device = device(&server);
    let test = async {
        for text in ["", "[]", r#"{"type":"shout"}"#, r#"{"type":"entry","offset":"x"}"#] {
            let mut connection = server.accept().await;
            connection.welcome("l", None).await;
            connection.say(&Down::CaughtUp { offset: 0 }).await;
            connection.say_text(text).await;
        }
        server.accept().await
    };
    let (_, happened) = beside(&mut device, test).await;
    assert_eq!(happened, ["disconnected"; 4]);
}
