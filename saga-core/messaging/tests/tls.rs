//! Tests Kafka over TLS with SASL, and Postgres over TLS, on real servers that require both. The configurations are
//! those of `deploy/README.md`, with the test servers' addresses.
//!
//! The tests need Java for the broker and the `openssl` command for the certificates. They are compiled always, and run
//! with the feature `tls`.

use anyhow::{Context, Result, bail, ensure};
use saga_core::{
    message::{Headers, OutgoingRecord},
    secret::Secret,
};
use saga_messaging::{
    kafka::{
        KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions, SaslMechanism, TopicRequirement,
        TopicSpec, check_topics, ensure_topics, health,
    },
    log::{LogError, LogReader, LogWriter, PollResult},
};
use saga_postgres::{PostgresConfig, store_pool};
use saga_servers::{KafkaOptions, KafkaServer, PostgresOptions, PostgresServer, free_port};
use sqlx::{Connection, PgConnection};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tokio::time::timeout;

const README: &str = include_str!("../../../deploy/README.md");
/// Longest wait: far longer than anything here takes, so that a test fails only if the event never happens.
const SOON: Duration = Duration::from_secs(30);
/// Login of the examples in `deploy/README.md`.
const USER: &str = "order-svc";
const PASSWORD: &str = "secret";

/// Directory for certificates and server data, removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("saga-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        // The account that Postgres runs as needs access through this directory.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the scratch directory goes");
    }
}

/// A server's certificate for 127.0.0.1 only, the authority that signed it, and an authority that did not.
struct Certificates {
    authority: PathBuf,
    stranger: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn make(scratch: &Scratch) -> Result<Self> {
        let settings = scratch.path("openssl.cnf");
        fs::write(
            &settings,
            "[req]\ndistinguished_name = name\n[name]\n\
             [authority]\nbasicConstraints = critical, CA:TRUE\nsubjectKeyIdentifier = hash\n\
             [server]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n",
        )?;
        let made = Self {
            authority: scratch.path("authority.pem"),
            stranger: scratch.path("stranger.pem"),
            certificate: scratch.path("server.pem"),
            key: scratch.path("server.key"),
        };
        let sign = |certificate: &Path, key: &Path, kind: &str, signer: &[&Path]| {
            let name = certificate.file_stem().context("a name")?.display();
            let mut command = Command::new("openssl");
            command
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
                .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
                // The authorities need different names, so that one is not taken for the other.
                .args(["-subj", &format!("/CN=saga test {name}")])
                .args(["-extensions", kind, "-config"])
                .arg(&settings)
                .arg("-keyout")
                .arg(key)
                .arg("-out")
                .arg(certificate);
            for (option, file) in ["-CA", "-CAkey"].into_iter().zip(signer) {
                command.arg(option).arg(file);
            }
            let output = command.output().context("openssl is not installed")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "openssl: {said}");
            Ok(())
        };
        let authority_key = scratch.path("authority.key");
        sign(&made.authority, &authority_key, "authority", &[])?;
        sign(
            &made.stranger,
            &scratch.path("stranger.key"),
            "authority",
            &[],
        )?;
        let signer = [made.authority.as_path(), &authority_key];
        sign(&made.certificate, &made.key, "server", &signer)?;
        Ok(made)
    }
}

/// Returns the TOML that follows the mark in `deploy/README.md`, with the examples' values replaced by the test's.
fn example(mark: &str, replaced: &[(&str, &str)]) -> Result<toml::Table> {
    let (_, after) = README
        .split_once(&format!("<!-- test: {mark} -->\n```toml\n"))
        .with_context(|| format!("deploy/README.md has no example {mark}"))?;
    let (text, _) = after.split_once("\n```").context("the example ends")?;
    let mut text = text.to_owned();
    for (from, to) in replaced {
        ensure!(text.contains(from), "the example names no {from}: {text}");
        text = text.replace(from, to);
    }
    Ok(toml::from_str(&text)?)
}

/// A broker with a plaintext listener for its own use, and a listener that requires TLS and a login.
struct Broker {
    server: KafkaServer,
    port: u16,
}

impl Broker {
    async fn start(scratch: &Scratch, certificates: &Certificates) -> Result<Self> {
        let (plain, port, controller) = (free_port(), free_port(), free_port());
        let keystore = scratch.path("keystore.pem");
        let both = [
            fs::read(&certificates.key)?,
            fs::read(&certificates.certificate)?,
        ];
        fs::write(&keystore, both.concat())?;
        let keystore = keystore.display().to_string();
        let mut options = KafkaOptions {
            quick_start: true,
            heap_mb: 256,
            ..KafkaOptions::new(scratch.path("kafka"), plain)
        };
        let login = "org.apache.kafka.common.security";
        options.extra_properties = [
            (
                "listeners",
                format!(
                    "PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"
                ),
            ),
            (
                "advertised.listeners",
                format!("PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{port}"),
            ),
            (
                "listener.security.protocol.map",
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL".to_owned(),
            ),
            ("controller.quorum.voters", format!("1@127.0.0.1:{controller}")),
            ("ssl.keystore.type", "PEM".to_owned()),
            ("ssl.keystore.location", keystore),
            (
                "listener.name.sasl_ssl.sasl.enabled.mechanisms",
                "SCRAM-SHA-512,PLAIN".to_owned(),
            ),
            (
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config",
                format!("{login}.scram.ScramLoginModule required;"),
            ),
            (
                "listener.name.sasl_ssl.plain.sasl.jaas.config",
                format!("{login}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";"),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        options.format_arguments = vec![
            "--add-scram".to_owned(),
            format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]"),
        ];
        let server = KafkaServer::start(options).await?;
        Ok(Self { server, port })
    }

    /// Returns the configuration of `deploy/README.md`.
    fn config(&self, certificates: &Certificates) -> Result<KafkaConfig> {
        let example = example(
            "kafka-tls",
            &[
                (
                    "kafka.example.com:9093",
                    &format!("127.0.0.1:{}", self.port),
                ),
                (
                    "/etc/saga/kafka-ca.pem",
                    &certificates.authority.display().to_string(),
                ),
            ],
        )?;
        let section = example.get("kafka").context("a section [kafka]")?;
        Ok(section.clone().try_into()?)
    }
}

/// Creates a topic, checks it, writes a record and reads it.
async fn round_trip(config: &KafkaConfig, topic: &str) -> Result<()> {
    ensure_topics(config, &[TopicSpec::new(topic, 1)]).await?;
    check_topics(config, &[TopicRequirement::new(topic, Duration::ZERO)]).await?;
    let writer = KafkaWriter::connect(config)?;
    let record = OutgoingRecord {
        topic: topic.to_owned(),
        partition: Some(0),
        key: b"key".to_vec(),
        headers: Headers::default(),
        payload: topic.as_bytes().to_vec(),
    };
    writer.publish(&[record]).await?;
    let options = ReaderOptions::default();
    let mut reader = KafkaReader::subscribe(config, &format!("{topic}-group"), &[topic], options)?;
    loop {
        if let PollResult::Records(records) = timeout(SOON, reader.poll(1)).await?? {
            let read = records.first().and_then(|record| record.payload.as_deref());
            ensure!(read == Some(topic.as_bytes()), "{records:?}");
            reader.done(&records)?;
            reader.close().await;
            return Ok(());
        }
    }
}

/// Checks that a refused client gets the reason, for every kind of request.
async fn refused(config: KafkaConfig, reason: &str) -> Result<()> {
    let expect = |error: LogError| {
        let said = format!("{:#}", anyhow::Error::new(error));
        ensure!(said.starts_with("the log refuses: "), "{said}");
        ensure!(said.contains(reason), "{said}");
        Ok(())
    };
    let topics = [TopicSpec::new("never", 1)];
    let writer = KafkaWriter::connect(&config)?;
    let options = ReaderOptions::default();
    let mut reader = KafkaReader::subscribe(&config, "never", &["never"], options)?;
    let (asked, made, written, read) = tokio::join!(
        health(&config),
        ensure_topics(&config, &topics),
        writer.health(),
        timeout(SOON, reader.poll(1))
    );
    expect(asked.err().context("let in to ask")?)?;
    expect(made.err().context("let in to create")?)?;
    expect(written.err().context("let in to write")?)?;
    expect(read?.err().context("let in to read")?)?;
    reader.close().await;
    Ok(())
}

#[tokio::test]
#[cfg_attr(not(feature = "tls"), ignore = "needs --features tls")]
async fn kafka_is_reached_over_tls_with_a_login_and_refuses_everyone_else() -> Result<()> {
    let scratch = Scratch::new("kafka")?;
    let certificates = Certificates::make(&scratch)?;
    let broker = Broker::start(&scratch, &certificates).await?;

    let scram = broker.config(&certificates)?;
    ensure!(scram.sasl_mechanism == Some(SaslMechanism::ScramSha512));
    round_trip(&scram, "by-scram").await?;
    let plain = KafkaConfig {
        sasl_mechanism: Some(SaslMechanism::Plain),
        ..scram.clone()
    };
    round_trip(&plain, "by-plain").await?;

    let guessed = |right: &KafkaConfig| KafkaConfig {
        sasl_password: Some(Secret::new("guessed")),
        ..right.clone()
    };
    let wrong_authority = KafkaConfig {
        ssl_ca_location: Some(certificates.stranger.clone()),
        ..scram.clone()
    };
    let wrong_name = KafkaConfig {
        brokers: format!("localhost:{}", broker.port),
        ..scram.clone()
    };
    tokio::try_join!(
        refused(
            guessed(&scram),
            "invalid credentials with SASL mechanism SCRAM-SHA-512"
        ),
        refused(guessed(&plain), "Invalid username or password"),
        refused(wrong_authority, "certificate could not be verified"),
        refused(wrong_name, "certificate could not be verified"),
    )?;
    broker.server.stop().await;
    Ok(())
}

/// Starts a server that uses TLS, with the role and the database of the example in `deploy/README.md`.
async fn start_postgres(scratch: &Scratch, certificates: &Certificates) -> Result<PostgresServer> {
    let options = PostgresOptions {
        fsync: false,
        ..PostgresOptions::new(scratch.path("postgres"), free_port())
    };
    let server = PostgresServer::start(options).await?;
    let mut superuser = PgConnection::connect(&server.superuser_url("postgres")).await?;
    let data: String = sqlx::query_scalar("SHOW data_directory")
        .fetch_one(&mut superuser)
        .await?;
    // The files have the names that Postgres looks for; it refuses a key that other accounts can read.
    let owner = fs::metadata(&data)?;
    for (from, name) in [
        (&certificates.certificate, "server.crt"),
        (&certificates.key, "server.key"),
    ] {
        let file = Path::new(&data).join(name);
        fs::copy(from, &file)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        chown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    for statement in [
        "CREATE ROLE orders LOGIN PASSWORD 'secret'",
        "CREATE DATABASE orders OWNER orders",
        "ALTER SYSTEM SET ssl = on",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::query(statement).execute(&mut superuser).await?;
    }
    Ok(server)
}

fn postgres_config(host: &str, port: u16, authority: &Path) -> Result<PostgresConfig> {
    let example = example(
        "postgres-tls",
        &[
            ("db.example.com:5432", &format!("{host}:{port}")),
            (
                "/etc/saga/postgres-ca.pem",
                &authority.display().to_string(),
            ),
        ],
    )?;
    let url = example
        .get("postgres")
        .and_then(|section| section.get("url")?.as_str())
        .context("a URL")?;
    Ok(PostgresConfig {
        url: Secret::new(url),
        max_connections: 2,
        connect_timeout_ms: 10_000,
    })
}

#[tokio::test]
#[cfg_attr(not(feature = "tls"), ignore = "needs --features tls")]
async fn postgres_is_reached_over_tls_and_only_by_its_right_name_and_authority() -> Result<()> {
    let scratch = Scratch::new("postgres")?;
    let certificates = Certificates::make(&scratch)?;
    let server = start_postgres(&scratch, &certificates).await?;
    let config = |host, authority| postgres_config(host, server.port(), authority);

    let pool = timeout(SOON, async {
        // A reload takes effect a moment after the request.
        loop {
            match store_pool(&config("127.0.0.1", &certificates.authority)?, "tls").await {
                Ok(pool) => return Ok(pool),
                Err(sqlx::Error::Tls(error)) if error.to_string().contains("not support") => {}
                Err(error) => bail!(error),
            }
        }
    })
    .await??;
    let encrypted: bool =
        sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            .fetch_one(&pool)
            .await?;
    ensure!(encrypted, "the connection is not encrypted");
    pool.close().await;

    for (host, authority, reason) in [
        ("127.0.0.1", &certificates.stranger, "UnknownIssuer"),
        ("localhost", &certificates.authority, "not valid for name"),
    ] {
        let error = store_pool(&config(host, authority)?, "tls").await;
        let error = error.err().context("let a stranger's server in")?;
        let said = format!("{:#}", anyhow::Error::new(error));
        ensure!(said.contains(reason), "{said}");
    }
    server.stop().await;
    Ok(())
}
