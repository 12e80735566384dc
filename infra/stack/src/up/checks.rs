//! What is looked at before anything is started, so that what is wrong is said at once.

use std::{io, net::SocketAddr};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;

/// Below this the local Kafka, which holds three files and more for each partition, does not come up.
const DESCRIPTORS_MIN: u64 = 1_024;
/// Below this there is no room for many clients.
const DESCRIPTORS_FEW: u64 = 4_096;

/// What a limit of open files means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descriptors {
    Enough,
    Few,
    TooFew,
}

/// What to do about too few of them.
pub(crate) const RAISE: &str = "raise the limit (ulimit -n 65536; where that is refused, LimitNOFILE of the service or /etc/security/limits.conf)";

/// Raises the limit of open files to what this process may have, and refuses one that is too low.
pub(super) fn descriptors() -> anyhow::Result<()> {
    let Some(files) = raise() else { return Ok(()) };
    match weigh(files) {
        Descriptors::Enough => {}
        Descriptors::Few => tracing::warn!(
            files,
            "this process may open few files and connections; raise the limit before many devices come: ulimit -n 65536"
        ),
        Descriptors::TooFew => {
            bail!("this process may open only {files} files, and needs {DESCRIPTORS_MIN}: {RAISE}")
        }
    }
    Ok(())
}

/// Raises the limit of open files to what this process may have, which it gives; `None` where there is no limit.
pub(crate) fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current }
}

/// How many files a stack may open once it has raised its limit, and what that means; `None` where there is no limit.
pub(crate) fn files() -> (Option<u64>, Descriptors) {
    let files = getrlimit(Resource::Nofile).maximum;
    (files, files.map_or(Descriptors::Enough, weigh))
}

fn weigh(files: u64) -> Descriptors {
    match files {
        DESCRIPTORS_FEW.. => Descriptors::Enough,
        DESCRIPTORS_MIN.. => Descriptors::Few,
        _ => Descriptors::TooFew,
    }
}

/// Takes the HTTP port, before what takes long.
pub(super) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
            "port {} of {} is taken by another program: stop that one, or choose another port with --listen {}:PORT (0 takes a free one)",
            address.port(),
            address.ip(),
            address.ip()
        ),
        Err(error) => Err(error)
            .with_context(|| format!("cannot listen at {address}; choose another address with --listen")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_open_files_is_enough_few_or_too_few() {
        let check = |files, expected| assert_eq!(weigh(files), expected, "{files}");
        check(1_023, Descriptors::TooFew);
        check(1_024, Descriptors::Few);
        check(4_095, Descriptors::Few);
        check(4_096, Descriptors::Enough);
        check(u64::MAX, Descriptors::Enough);
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_says_what_to_do() {
        let first = listen("127.0.0.1:0".parse().unwrap()).await.expect("a free port");
        let address = first.local_addr().unwrap();
        let error = listen(address).await.expect_err("it is taken").to_string();
        assert!(error.contains(&format!("port {} of 127.0.0.1 is taken", address.port())), "{error}");
        assert!(error.contains("--listen"), "{error}");
    }
}
