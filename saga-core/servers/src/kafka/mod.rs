//! A private Kafka: one KRaft process, broker and controller, on loopback.
//!
//! Kafka comes from the first source that is available:
//!
//! ```text
//! Java 17+?  yes ─▶ $KAFKA_HOME/libs ─▶ the cached jars ─▶ the pinned jars, fetched once
//!            no  ─▶ a Docker engine and the image of $SAGA_KAFKA_IMAGE ─▶ an error that says what to install
//! ```

mod docker;
mod java;
mod probe;
mod properties;

use crate::{
    directory::{self, DirectoryLock},
    error::ServerError,
    fetch, port,
    process::{self, Process, Signal},
};
pub use docker::settings as container_settings;
pub use probe::answers;

use java::Java;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};
use uuid::Uuid;

pub(crate) const NAME: &str = "Kafka";
const JARS: &str = include_str!("../../artifacts/kafka-4.1.0.txt");
const JARS_DIRECTORY: &str = "kafka-4.1.0";
/// Limit for a start with Java. A broker that was killed reads its logs before it serves.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// Limit for a start with a container, whose image may have to be pulled first.
const READY_LIMIT_CONTAINER: Duration = Duration::from_mins(10);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct KafkaOptions {
    pub data_dir: PathBuf,
    pub port: u16,
    pub heap_mb: u32,
    /// Compiles less: the broker is ready sooner and uses less memory, but is slower under load. For tests.
    pub quick_start: bool,
    /// A Java home that is tried before `JAVA_HOME` and `PATH`.
    pub java_home: Option<PathBuf>,
    /// The directory for fetched files; the user's own cache directory if `None`.
    pub cache_dir: Option<PathBuf>,
    /// Broker properties that override the server's own, such as a listener with TLS beside the plain listener. They
    /// apply only if Java runs the broker.
    pub extra_properties: BTreeMap<String, String>,
    /// Arguments of the storage tool at the first start, such as `--add-scram` with a user.
    pub format_arguments: Vec<String>,
}

impl KafkaOptions {
    pub fn new(data_dir: impl Into<PathBuf>, port: u16) -> Self {
        Self {
            data_dir: data_dir.into(),
            port,
            heap_mb: 512,
            quick_start: false,
            java_home: None,
            cache_dir: None,
            extra_properties: BTreeMap::new(),
            format_arguments: Vec::new(),
        }
    }
}

/// The way in which the broker is run.
#[derive(Debug)]
enum Launcher {
    Java { java: Java, classpath: PathBuf },
    Container { name: String },
}

/// A running broker. Dropping it stops it.
#[derive(Debug)]
pub struct KafkaServer {
    process: Process,
    launcher: Launcher,
    home: PathBuf,
    log: PathBuf,
    options: KafkaOptions,
    _lock: DirectoryLock,
}

impl KafkaServer {
    /// Starts a broker on `data_dir`, which is created if it is missing, and waits until it answers.
    pub async fn start(options: KafkaOptions) -> Result<Self, ServerError> {
        let lock = DirectoryLock::acquire(&options.data_dir)?;
        let home = options
            .data_dir
            .canonicalize()
            .map_err(ServerError::io("resolve", &options.data_dir))?;
        let launcher = launcher(&options, &home).await?;
        let server = Self {
            process: Process::new(Signal::Terminate, STOP_LIMIT),
            launcher,
            log: home.join("kafka.log"),
            home,
            options,
            _lock: lock,
        };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts the broker again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and data.
    pub async fn start_again(&self) -> Result<(), ServerError> {
        match &self.launcher {
            Launcher::Java { java, classpath } => {
                process::end_left_over(&self.home, "java").await?;
                port::check_free(NAME, self.options.port)?;
                let command = self.java_command(java, classpath).await?;
                self.run(command)?;
                self.ready(READY_LIMIT).await
            }
            Launcher::Container { name } => {
                docker::remove(name).await;
                port::check_free(NAME, self.options.port)?;
                self.run(docker::run(name, self.options.port, self.options.heap_mb))?;
                self.ready(READY_LIMIT_CONTAINER).await
            }
        }
    }

    async fn java_command(&self, java: &Java, classpath: &Path) -> Result<Command, ServerError> {
        let data = self.home.join("data");
        if !data.join("meta.properties").exists() {
            self.format(java, classpath, &data).await?;
        }
        let file = self.write_properties("server.properties", &data, self.options.port)?;
        let mut command = self.jvm(java, classpath);
        command
            .arg(format!("-Xmx{}m", self.options.heap_mb))
            .args(["-Xms64m", "-XX:+ExitOnOutOfMemoryError"])
            .arg("kafka.Kafka")
            .arg(file);
        Ok(command)
    }

    /// Writes the cluster id into the data directory, once.
    async fn format(&self, java: &Java, classpath: &Path, data: &Path) -> Result<(), ServerError> {
        // The directory is renamed when it is complete, so a half-formatted directory is never used.
        let new = self.home.join("data.new");
        for half in [new.as_path(), data] {
            if half.exists() {
                fs::remove_dir_all(half).map_err(ServerError::io("remove", half))?;
            }
        }
        let file = self.write_properties("format.properties", &new, self.options.port)?;
        let mut command = self.jvm(java, classpath);
        command
            .args([
                "-XX:TieredStopAtLevel=1",
                "kafka.tools.StorageTool",
                "format",
            ])
            .args(["--cluster-id", &cluster_id(Uuid::new_v4()), "--config"])
            .arg(&file)
            .args(&self.options.format_arguments);
        process::run_tool("Kafka's StorageTool", command, None).await?;
        fs::rename(&new, data).map_err(ServerError::io("put in place", data))?;
        fs::remove_file(&file).map_err(ServerError::io("remove", file))
    }

    fn write_properties(&self, name: &str, data: &Path, port: u16) -> Result<PathBuf, ServerError> {
        let logging = self.home.join("log4j2.properties");
        fs::write(&logging, properties::LOGGING).map_err(ServerError::io("write", &logging))?;
        let file = self.home.join(name);
        // Only the broker itself connects to its controller, so any port will do.
        let own = properties::server(data, port, port::free_port());
        let text = properties::write(own, &self.options.extra_properties);
        fs::write(&file, text).map_err(ServerError::io("write", &file))?;
        Ok(file)
    }

    fn jvm(&self, java: &Java, classpath: &Path) -> Command {
        let mut command = Command::new(&java.program);
        command
            // A later start recognizes left-over processes by their working directory.
            .current_dir(&self.home)
            .args(["-XX:+UseSerialGC", "-Djava.awt.headless=true", "-cp"])
            .arg(classpath.join("*"))
            .arg("-Dlog4j2.configurationFile=log4j2.properties");
        if self.options.quick_start {
            command.arg("-XX:TieredStopAtLevel=1");
        }
        command
    }

    fn run(&self, mut command: Command) -> Result<(), ServerError> {
        let log = directory::open_log(&self.log)?;
        let errors = log
            .try_clone()
            .map_err(ServerError::io("share", &self.log))?;
        command.stdout(log).stderr(errors);
        let program = PathBuf::from(command.get_program());
        self.process
            .start(command, None)
            .map(|pid| tracing::debug!(pid, port = self.options.port, "broker process started"))
            .map_err(ServerError::io("run", program))
    }

    async fn ready(&self, limit: Duration) -> Result<(), ServerError> {
        let began = Instant::now();
        while !probe::answers(self.options.port).await {
            if let Some(status) = self.process.ended() {
                return Err(ServerError::EndedEarly {
                    server: NAME,
                    status: status.to_string(),
                    log: self.log.clone(),
                    tail: directory::tail(&self.log),
                });
            }
            if began.elapsed() > limit {
                return Err(ServerError::NotReady {
                    server: NAME,
                    seconds: limit.as_secs(),
                    log: self.log.clone(),
                    tail: directory::tail(&self.log),
                });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Does a controlled shutdown.
    pub async fn stop(&self) {
        self.process.stop().await;
    }

    /// Sends SIGKILL, as if the machine had crashed.
    pub async fn kill(&self) {
        if let Launcher::Container { name } = &self.launcher {
            docker::signal(name, "SIGKILL").await;
        }
        self.process.kill().await;
    }

    pub async fn pause(&self) {
        match &self.launcher {
            Launcher::Java { .. } => self.process.pause(),
            Launcher::Container { name } => docker::signal(name, "SIGSTOP").await,
        }
    }

    pub async fn resume(&self) {
        match &self.launcher {
            Launcher::Java { .. } => self.process.resume(),
            Launcher::Container { name } => docker::signal(name, "SIGCONT").await,
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Returns the exit status once the broker has ended without being asked to.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.ended()
    }

    pub fn port(&self) -> u16 {
        self.options.port
    }

    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.options.port)
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns true if the broker runs in a container because there is no Java.
    pub fn is_container(&self) -> bool {
        matches!(self.launcher, Launcher::Container { .. })
    }
}

/// Returns Kafka's form of an id: 16 bytes in URL-safe base64. The first bit is cleared, so that no id begins with a
/// dash, which would make it look like an option.
fn cluster_id(random: Uuid) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const CHARACTERS: u32 = 22;
    let bits = random.as_u128() & (u128::MAX >> 1);
    (0..CHARACTERS)
        .map(|index| {
            // Each character takes six bits from the left. The last character has two bits left, followed by zeros.
            let sextet = match 122_u32.checked_sub(6 * index) {
                Some(shift) => bits >> shift,
                None => bits << 4,
            } & 63;
            char::from(ALPHABET[sextet as usize])
        })
        .collect()
}

async fn launcher(options: &KafkaOptions, home: &Path) -> Result<Launcher, ServerError> {
    let no_java = match java::find(options.java_home.as_deref()).await {
        Ok(java) => {
            let classpath = jars(options).await?;
            return Ok(Launcher::Java { java, classpath });
        }
        Err(found) => found,
    };
    if !(options.extra_properties.is_empty() && options.format_arguments.is_empty()) {
        return Err(ServerError::NotInstalled(format!(
            "a broker with properties of one's own needs Java {} or newer: {no_java}",
            java::OLDEST
        )));
    }
    match docker::available().await {
        Ok(()) => {
            fetch::say(&format!(
                "{no_java}; Kafka runs as a container of {}",
                docker::image()
            ));
            Ok(Launcher::Container {
                name: docker::name(home),
            })
        }
        Err(no_docker) => Err(ServerError::NotInstalled(format!(
            "Kafka needs Java {} or newer: {no_java}, and {no_docker}. Install a Java runtime (Debian and Ubuntu: apt-get \
             install openjdk-17-jre-headless; Fedora: dnf install java-21-openjdk-headless; macOS: brew install openjdk), \
             or set JAVA_HOME, or start a Docker engine, or name a broker of your own with --kafka-brokers HOST:PORT",
            java::OLDEST
        ))),
    }
}

async fn jars(options: &KafkaOptions) -> Result<PathBuf, ServerError> {
    if let Some(home) = env::var_os("KAFKA_HOME") {
        return installed_jars(&PathBuf::from(home).join("libs"));
    }
    pinned_jars(options.cache_dir.as_deref()).await
}

async fn pinned_jars(cache_dir: Option<&Path>) -> Result<PathBuf, ServerError> {
    let cache = directory::cache(cache_dir, None)?;
    fetch::fetch(
        "Kafka 4.1.0",
        &fetch::parse_list(JARS),
        &cache,
        JARS_DIRECTORY,
    )
    .await
}

/// Returns the directory of the pinned jars in the user's cache; fetches them if they are not there.
pub async fn kafka_jars() -> Result<PathBuf, ServerError> {
    pinned_jars(None).await
}

/// Returns the jars of an installed Kafka. An older Kafka does not know all of our settings, so it is an error.
fn installed_jars(libs: &Path) -> Result<PathBuf, ServerError> {
    const OLDEST_MAJOR: u32 = 4;
    let version = fs::read_dir(libs)
        .into_iter()
        .flatten()
        .flatten()
        .find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("kafka_2.13-")?.strip_suffix(".jar")?;
            version.split('.').next()?.parse::<u32>().ok()
        });
    match version {
        Some(major) if major >= OLDEST_MAJOR => Ok(libs.to_owned()),
        Some(_) | None => Err(ServerError::NotInstalled(format!(
            "KAFKA_HOME is set, but {} holds no kafka_2.13 jar of version {OLDEST_MAJOR} or newer: correct it or unset it",
            libs.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_id_is_url_safe_base64_of_16_bytes() {
        let check =
            |hex: u128, expected: &str| assert_eq!(cluster_id(Uuid::from_u128(hex)), expected);
        check(0, "AAAAAAAAAAAAAAAAAAAAAA");
        check(1, "AAAAAAAAAAAAAAAAAAAAAQ");
        check(u128::MAX, "f____________________w");
        check(
            0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f,
            "AAECAwQFBgcICQoLDA0ODw",
        );
    }

    #[test]
    fn jars_are_all_pinned() {
        let jars = fetch::parse_list(JARS);
        assert_eq!(
            jars.len(),
            JARS.lines().filter(|line| !line.starts_with('#')).count()
        );
        assert!(
            jars.iter()
                .any(|jar| jar.file_name() == "kafka_2.13-4.1.0.jar")
        );
    }
}
