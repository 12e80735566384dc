//! The whole on real Kafka and Postgres: an import gives exactly the matches that an oracle finds, whatever is
//! killed meanwhile.

use std::{fs, path::Path, sync::Arc, thread::sleep, time::Duration};

use waypost_e2e::{
    input::Input,
    stack::{Stack, alone, free_address, path, signal},
};
use waypost_runtime::{
    broker::{Broker, Outgoing, Producer, contract, kafka},
    datadir::DataDir,
};
use waypost_schemas::{
    codec,
    event::FixReported,
    id::DeviceId,
    time::Micros,
    topic::{Topic, TopicPartition},
};

/// Throws away the store of a stack that is stopped, wherever it stands.
fn drop_store(stack: &Stack) {
    let data = DataDir::existing(&stack.data()).unwrap();
    waypost::remove_store(&data).unwrap();
    fs::remove_dir_all(data.postgres()).unwrap();
}

#[test]
fn an_import_gives_the_oracles_matches_and_a_second_one_nothing_new() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&[]).unwrap();
    let input = Input::at_hand(&stack.beside("")).unwrap();
    input.prepare(&stack).unwrap();
    for _ in 0..2 {
        stack.begin(&["import", path(&input.fixes)]).unwrap().ended().unwrap();
        assert_eq!(stack.matches().unwrap(), input.expected);
    }
    up.stop().unwrap();
    assert_eq!(up.errors(), [""; 0]);
}

#[test]
fn a_processor_that_is_killed_five_times_loses_and_repeats_nothing() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&["--only", "ingest"]).unwrap();
    let input = Input::at_hand(&stack.beside("")).unwrap();
    input.prepare(&stack).unwrap();
    let mut processor = stack.processor(1).unwrap();
    let mut importing = stack.begin(&["import", path(&input.fixes)]).unwrap();
    for _ in 0..5 {
        // A fault at some moment of the work: how far the work is then is not asked.
        sleep(Duration::from_secs(3));
        processor.kill().unwrap();
        processor = stack.processor(1).unwrap();
    }
    importing.ended().unwrap();
    assert_eq!(stack.matches().unwrap(), input.expected);
    processor.stop().unwrap();
    up.stop().unwrap();
    assert_eq!(up.errors(), [""; 0]);
}

#[test]
fn a_processor_that_sleeps_longer_than_its_session_loses_and_repeats_nothing() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&["--only", "ingest"]).unwrap();
    let input = Input::at_hand(&stack.beside("")).unwrap();
    input.prepare(&stack).unwrap();
    let mut sleeper = stack.processor(1).unwrap();
    let mut other = stack.processor(2).unwrap();
    sleep(Duration::from_secs(6));
    let mut importing = stack.begin(&["import", path(&input.fixes)]).unwrap();
    sleep(Duration::from_secs(2));
    signal(sleeper.pid(), "STOP").unwrap();
    sleep(Duration::from_secs(10));
    signal(sleeper.pid(), "CONT").unwrap();
    importing.ended().unwrap();
    assert_eq!(stack.matches().unwrap(), input.expected);
    assert!(sleeper.runs(), "it wakes and goes on: {}", sleeper.log());
    sleeper.stop().unwrap();
    other.stop().unwrap();
    up.stop().unwrap();
}

#[test]
fn kafka_postgres_and_the_whole_stack_are_killed_and_then_the_state_is_thrown_away() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let first = stack.beside("");
    // The port stays the same, so that the import finds the stack again.
    let port = free_address().unwrap();
    let mut up = stack.up(&["--listen", &port]).unwrap();
    let input = Input::at_hand(&first).unwrap();
    input.prepare(&stack).unwrap();
    let mut importing = stack.begin(&["import", path(&input.fixes)]).unwrap();
    sleep(Duration::from_secs(3));
    signal(stack.pid_of("kafka").unwrap(), "KILL").unwrap();
    sleep(Duration::from_secs(10));
    // Postgres' own fast shutdown.
    let postgres = stack.pid_of("postgres").unwrap_or_else(|error| panic!("{error}: {}", up.log()));
    signal(postgres, "INT").unwrap();
    sleep(Duration::from_secs(6));
    up.kill().unwrap();
    let mut up = stack.up(&["--listen", &port]).unwrap();
    importing.ended().unwrap();
    assert_eq!(stack.matches().unwrap(), input.expected);
    up.stop().unwrap();
    assert_eq!(up.errors(), [""; 0]);

    drop_store(&stack);
    // A stack that was stopped before its group gave it anything has kept none.
    if let Err(error) = fs::remove_dir_all(stack.data().join("snapshots")) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    }
    let mut up = stack.up(&["--listen", &port]).unwrap();
    assert_eq!(stack.matches().unwrap(), input.expected, "rebuilt from the log alone");
    up.stop().unwrap();
    assert_eq!(up.errors(), [""; 0]);
}

/// A Python with what an outside consumer needs; none where Python or its packages are out of reach.
fn python(dir: &Path) -> Option<std::path::PathBuf> {
    let run = |program: &Path, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).output();
        output.is_ok_and(|output| output.status.success())
    };
    let made = run(Path::new("python3"), &["-m", "venv", path(dir)]);
    let python = dir.join("bin/python");
    let packages = ["-m", "pip", "install", "--quiet", "confluent-kafka==2.*", "fastavro==1.*"];
    (made && run(&python, &packages)).then_some(python)
}

#[test]
fn a_consumer_in_python_decodes_matches_with_the_committed_schema() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let Some(python) = python(&stack.beside("python")) else {
        eprintln!(
            "skipped: python3, its venv, or the packages confluent-kafka and fastavro are out of reach"
        );
        return;
    };
    let mut up = stack.up(&[]).unwrap();
    let input = Input::at_hand(&stack.beside("")).unwrap();
    input.prepare(&stack).unwrap();
    stack.begin(&["import", path(&input.fixes)]).unwrap().ended().unwrap();
    assert_eq!(stack.matches().unwrap(), input.expected);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = codec::SCHEMAS.iter().find(|schema| schema.name == "RuleMatched").unwrap();
    let file = root.join("../schemas/avro").join(format!("{}.1.avsc", schema.name));
    let bootstrap = stack.json().unwrap()["kafka"].as_str().unwrap().to_owned();
    let output = std::process::Command::new(python)
        .args([path(&root.join("consumer.py")), &bootstrap, path(&file), &schema.id.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen = waypost_e2e::stack::rows(&format!("head\n{}", String::from_utf8(output.stdout).unwrap()));
    let mut expected: Vec<String> = input
        .expected
        .iter()
        .map(|row| {
            let (device, rest) = row.split_once(',').unwrap();
            let (_, zone_and_event) = rest.split_once(',').unwrap();
            format!("{device},{}", zone_and_event.replace('"', ""))
        })
        .collect();
    expected.sort();
    assert_eq!(seen, expected);
    up.stop().unwrap();
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[test]
fn snapshots_with_a_changed_byte_are_told_and_not_used() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&[]).unwrap();
    let input = Input::at_hand(&stack.beside("")).unwrap();
    input.prepare(&stack).unwrap();
    stack.begin(&["import", path(&input.fixes)]).unwrap().ended().unwrap();
    assert_eq!(stack.matches().unwrap(), input.expected);
    // A clean stop writes a snapshot of each partition in both places; Postgres's are thrown away.
    up.stop().unwrap();
    drop_store(&stack);
    let snapshots: Vec<_> = files(&stack.data())
        .into_iter()
        .filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("chunks-")))
        .collect();
    assert!(!snapshots.is_empty(), "a stop writes snapshots: {:?}", files(&stack.data()));
    for file in &snapshots {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file, bytes).unwrap();
    }
    let mut up = stack.up(&[]).unwrap();
    stack.begin(&["import", path(&input.fixes)]).unwrap().ended().unwrap();
    assert_eq!(stack.matches().unwrap(), input.expected, "rebuilt from the log, and nothing new");
    assert!(up.log().contains("a snapshot is not used"), "{}", up.log());
    up.stop().unwrap();
    assert_eq!(up.errors(), [""; 0]);
}

fn raw(to: TopicPartition, value: Vec<u8>) -> Outgoing {
    Outgoing { to, key: Some("tracker".into()), value: Some(value.into()), headers: Vec::new() }
}

/// What nobody should write to the log, and the code that each must be buried with.
fn poison() -> Vec<(Outgoing, &'static str)> {
    let at = |topic| TopicPartition::new(topic, 3);
    let fix = |at_us| FixReported {
        device: DeviceId::new("tracker").unwrap(),
        lat: 1.0,
        lon: 1.0,
        at_us: Micros(at_us),
        accuracy_m: None,
        speed_mps: None,
        heading_deg: None,
        altitude_m: None,
        attributes: std::collections::BTreeMap::new(),
        registry: -1,
    };
    let good = codec::encode(&fix(1_600_000_000_000_000).into());
    vec![
        (raw(at(Topic::Positions), vec![0, 0, 0, 0x7f, 0xff, 1]), "unknown_schema"),
        (raw(at(Topic::Positions), good[..good.len() - 3].to_vec()), "broken_datum"),
        (raw(at(Topic::Positions), b"{\"lat\": 1}".to_vec()), "foreign_record"),
        (raw(at(Topic::Positions), codec::encode(&fix(0).into())), "bad_device_time"),
        (raw(at(Topic::Matches), b"{}".to_vec()), "foreign_record"),
        (raw(at(Topic::Matches), example("matched-exit")), "no_seq"),
        (raw(at(Topic::Inboxes), b"{}".to_vec()), "foreign_record"),
        (raw(at(Topic::Inboxes), example("entry-match")), "no_seq"),
        (raw(TopicPartition::new(Topic::Registry, 0), b"{}".to_vec()), "foreign_record"),
        (raw(TopicPartition::new(Topic::Registry, 0), good), "wrong_type"),
    ]
}

fn example(name: &str) -> Vec<u8> {
    let examples = waypost_schemas::example::all();
    codec::encode(&examples.iter().find(|(n, _)| *n == name).unwrap().1)
}

/// The reasons of all dead letters of a partition, in the order of their offsets.
async fn buried(broker: &dyn Broker, partition: i32) -> Vec<String> {
    let reader = broker.reader().unwrap();
    let mut feed = reader.open(TopicPartition::new(Topic::DeadLetters, partition), 0).unwrap();
    let mut codes = Vec::new();
    loop {
        let batch = feed.next().await.unwrap();
        for record in &batch.records {
            let header =
                |name| String::from_utf8(record.header(name).expect("a dead letter says why").to_vec());
            codes.push(format!("{} {}", header("waypost_topic").unwrap(), header("waypost_reason").unwrap()));
        }
        if batch.at_end {
            return codes;
        }
    }
}

#[test]
fn poison_on_any_topic_becomes_dead_letters_and_processing_goes_on() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&[]).unwrap();
    let input = Input::at_hand(&stack.beside("")).unwrap();
    input.prepare(&stack).unwrap();
    let bootstrap = stack.json().unwrap()["kafka"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let broker = runtime.block_on(async {
        let broker: Arc<dyn Broker> =
            Arc::new(kafka::Broker::connect(kafka::Config::new(bootstrap)).unwrap());
        let producer: Arc<dyn Producer> = broker.producer().unwrap();
        let records = poison().into_iter().map(|(record, _)| record).collect();
        producer.send(records).await.unwrap().await.unwrap();
        broker
    });
    stack.begin(&["import", path(&input.fixes)]).unwrap().ended().unwrap();
    assert_eq!(stack.matches().unwrap(), input.expected);
    let mut expected: Vec<String> =
        poison().iter().map(|(record, code)| format!("{} {code}", record.to.topic)).collect();
    let mut seen =
        runtime.block_on(async { [buried(&*broker, 0).await, buried(&*broker, 3).await].concat() });
    // Of several topics any may be buried first.
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
    up.stop().unwrap();
}

#[test]
fn kafka_keeps_the_brokers_contract() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let partitions = contract::KEYED.to_string();
    // The contract founds its own topics' records: no machine reads along.
    let mut up =
        stack.up(&["--only", "ingest", "--set", &format!("topics.partitions={partitions}")]).unwrap();
    let bootstrap = stack.json().unwrap()["kafka"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let config = kafka::Config::new(bootstrap);
    runtime.block_on(async {
        let broker: Arc<dyn Broker> = Arc::new(kafka::Broker::connect(config.clone()).unwrap());
        contract::check(broker, "e2e").await;
    });
    kafka::bare::check_partitioner(config, contract::KEYED);
    drop(runtime);
    up.kill().unwrap();
    // What the kill left is ended by the next start, which this test does not need: it ends them itself.
    for part in ["kafka", "postgres"] {
        signal(stack.pid_of(part).unwrap(), "KILL").unwrap();
    }
}
