//! What the broker is made of: a Java that is there, and Kafka's jars, fetched once for all data directories.

use std::{
    collections::VecDeque,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use super::super::{Environment, last_lines, run, short_hash};

const POM: &str = include_str!("../../../../kafka/pom.xml");
const KAFKA_VERSION: &str = "4.4.0";
const JAVA_MAJOR_MIN: u32 = 17;
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How much of Maven's output an error quotes.
const LINES_KEPT: usize = 12;
const LOCK_POLL: Duration = Duration::from_millis(200);
const NO_MAVEN: &str = "no Maven: the local Kafka is fetched with it; install it (Debian: apt install maven)";
const WAYS_OUT: &str = "or use a Kafka that is there: --kafka HOST:PORT, or KAFKA_HOME for its programs";

/// A Java that is new enough.
pub(super) struct Java {
    pub(super) path: PathBuf,
    pub(super) major: u32,
}

/// Finds Java by `JAVA_HOME`, then `PATH`.
pub(super) async fn java(environment: &Environment) -> anyhow::Result<Java> {
    let home = environment.get("JAVA_HOME").filter(|home| !home.is_empty());
    let path = home.map_or_else(|| PathBuf::from("java"), |home| Path::new(home).join("bin/java"));
    let Some(said) = run(Command::new(&path).arg("-version")).await? else {
        let place = home.map_or_else(String::new, |home| format!(" in JAVA_HOME={home}"));
        bail!(
            "no Java{place}: the local Kafka needs Java {JAVA_MAJOR_MIN} or newer; install it (Debian: apt install openjdk-17-jre-headless), {WAYS_OUT}"
        );
    };
    let text = format!("{}\n{}", said.stderr, said.stdout);
    match java_major(&text) {
        Some(major) if major >= JAVA_MAJOR_MIN => Ok(Java { path, major }),
        Some(major) => bail!(
            "{} is Java {major}: the local Kafka needs {JAVA_MAJOR_MIN} or newer; install it (Debian: apt install openjdk-17-jre-headless) or point JAVA_HOME to it, {WAYS_OUT}",
            path.display()
        ),
        None => bail!("{} -version does not tell a version:\n{}", path.display(), last_lines(&text, 4)),
    }
}

/// The major version in what `java -version` says; before 9 it is the second number of `1.8`.
fn java_major(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("version \"")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    match numbers.next()?? {
        1 => numbers.next()?,
        major => Some(major),
    }
}

/// Where Kafka's jars are or will come from, without fetching them, for a person.
pub(super) async fn source(environment: &Environment) -> anyhow::Result<String> {
    if let Some(home) = environment.get("KAFKA_HOME").filter(|home| !home.is_empty()) {
        classpath(environment).await?;
        return Ok(format!("those of KAFKA_HOME={home}"));
    }
    let jars = jars_dir(&cache_dir(environment)?);
    if jars.is_dir() {
        return Ok(format!("Kafka {KAFKA_VERSION} in {}", jars.display()));
    }
    match run(Command::new("mvn").arg("--version")).await? {
        Some(said) if said.success => {
            let version = said.stdout.lines().next().unwrap_or("Maven").to_owned();
            Ok(format!("{version} will fetch Kafka {KAFKA_VERSION} at the first start, 43 MB"))
        }
        Some(said) => bail!("mvn --version fails:\n{}", last_lines(&said.stderr, 4)),
        None => bail!("{NO_MAVEN}, {WAYS_OUT}"),
    }
}

/// The class path of Kafka: `KAFKA_HOME`'s, or the cached jars, fetched where they are missing.
pub(super) async fn classpath(environment: &Environment) -> anyhow::Result<String> {
    let jars = match environment.get("KAFKA_HOME").filter(|home| !home.is_empty()) {
        Some(home) => {
            let libs = Path::new(home).join("libs");
            if jars_in(&libs) == 0 {
                bail!("KAFKA_HOME={home} holds no jars in libs: point it to an unpacked Kafka, or unset it");
            }
            libs
        }
        None => cached(environment).await?,
    };
    let path = jars.display().to_string();
    if path.contains(':') {
        bail!(
            "Java cannot take jars from {path}, because of the colon: set XDG_CACHE_HOME to another directory"
        );
    }
    Ok(format!("{path}/*"))
}

async fn cached(environment: &Environment) -> anyhow::Result<PathBuf> {
    let cache = cache_dir(environment)?;
    let jars = jars_dir(&cache);
    if jars.is_dir() {
        return Ok(jars);
    }
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let _alone = alone(cache.join("kafka.lock")).await?;
    // Another start may have fetched them while this one waited.
    if !jars.is_dir() {
        fetch(&cache, &jars).await?;
    }
    Ok(jars)
}

/// Another pom is another directory; the version is in the name for whoever looks.
fn jars_dir(cache: &Path) -> PathBuf {
    cache.join(format!("kafka-{KAFKA_VERSION}-{}", short_hash(POM.as_bytes())))
}

fn cache_dir(environment: &Environment) -> anyhow::Result<PathBuf> {
    let of = |name: &str| environment.get(name).filter(|path| Path::new(path).is_absolute());
    // The XDG Base Directory Specification ignores paths that are not absolute.
    let base =
        of("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(Path::new(of("HOME")?).join(".cache")));
    let base = base.with_context(|| {
        format!("neither XDG_CACHE_HOME nor HOME names a directory for Kafka's jars: set one, {WAYS_OUT}")
    })?;
    Ok(base.join("waypost"))
}

/// Waits for the lock by which one start at a time fetches.
async fn alone(path: PathBuf) -> anyhow::Result<File> {
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // Polled, so that a stop need not wait for a thread that waits.
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
}

async fn fetch(cache: &Path, jars: &Path) -> anyhow::Result<()> {
    let new = cache.join("fetching");
    // What a fetch that was killed has left; the lock is ours.
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| new.display().to_string())?;
    }
    let libs = new.join("libs");
    fs::create_dir_all(&libs).with_context(|| libs.display().to_string())?;
    let pom = new.join("pom.xml");
    fs::write(&pom, POM).with_context(|| pom.display().to_string())?;

    tracing::info!("fetching kafka {KAFKA_VERSION} with maven, once for this user: 43 MB");
    let mut command = Command::new("mvn");
    command.args(["--batch-mode", "--file"]).arg(&pom).arg("dependency:copy-dependencies");
    command.arg("-DincludeScope=runtime").arg(format!("-DoutputDirectory={}", libs.display()));
    let Some((success, end)) = watch(&mut command).await? else {
        bail!("{NO_MAVEN}, {WAYS_OUT}");
    };
    if !success || jars_in(&libs) == 0 {
        bail!("Maven could not fetch Kafka; is Maven Central in reach? try again, {WAYS_OUT}\n{end}");
    }
    fs::rename(&libs, jars).with_context(|| jars.display().to_string())?;
    let _ = fs::remove_dir_all(&new);
    tracing::info!(dir = %jars.display(), jars = jars_in(jars), "kafka is fetched");
    Ok(())
}

/// Runs Maven, and tells how much it has downloaded; whether it succeeded, and its last lines. `None` where there is
/// no Maven.
async fn watch(command: &mut Command) -> anyhow::Result<Option<(bool, String)>> {
    command
        .kill_on_drop(true)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot run mvn"),
    };
    let mut lines = BufReader::new(child.stdout.take().context("mvn has no output")?).lines();
    let mut tell = tokio::time::interval(TELL_EVERY);
    let (mut end, mut files) = (VecDeque::new(), 0);
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line.context("mvn's output")? else { break };
                files += usize::from(line.contains("Downloaded from"));
                end.push_back(line);
                if end.len() > LINES_KEPT {
                    end.pop_front();
                }
            }
            _ = tell.tick() => {
                if files > 0 {
                    tracing::info!(files, "fetching kafka and what maven needs for it");
                }
            }
        }
    }
    let status = child.wait().await.context("mvn")?;
    Ok(Some((status.success(), end.make_contiguous().join("\n"))))
}

fn jars_in(dir: &Path) -> usize {
    let is_jar = |entry: &std::io::Result<fs::DirEntry>| {
        entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "jar"))
    };
    fs::read_dir(dir).map_or(0, |entries| entries.filter(is_jar).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_java_is_read_as_it_is_told_before_and_since_9() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(java_major(text), expected, "{text}");
        check("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment", Some(17));
        check("java version \"1.8.0_392\"", Some(8));
        check("Picked up _JAVA_OPTIONS: -Xmx1g\nopenjdk version \"25\" 2025-09-16", Some(25));
        check("openjdk version \"21-ea\" 2023-09-19", Some(21));
        check("command not found", None);
    }

    #[test]
    fn the_cache_is_xdgs_or_under_home() {
        let check = |pairs: &[(&str, &str)], expected: Option<&str>| {
            let environment = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(cache_dir(&environment).ok(), expected.map(PathBuf::from), "{pairs:?}");
        };
        check(&[("HOME", "/home/me")], Some("/home/me/.cache/waypost"));
        check(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/cache")], Some("/cache/waypost"));
        check(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "cache")], Some("/home/me/.cache/waypost"));
        check(&[], None);
    }

    #[tokio::test]
    async fn a_missing_java_is_an_error_that_says_what_to_install() {
        let environment = Environment::from([("JAVA_HOME".into(), "/nowhere".into())]);
        let error = java(&environment).await.err().expect("there is none").to_string();
        assert!(error.starts_with("no Java in JAVA_HOME=/nowhere"), "{error}");
        assert!(error.contains("apt install") && error.contains("--kafka"), "{error}");
    }
}
