//! Tests the real servers: they are started, killed and started again.

use anyhow::{Context, Result, ensure};
use saga_servers::{
    KafkaOptions, KafkaServer, PostgresOptions, PostgresServer, ServerError, free_port,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A directory that is removed when the test ends, whether it passes or not.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("saga-servers-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a scratch directory");
        Self(path)
    }

    fn postgres(&self) -> PostgresOptions {
        PostgresOptions {
            fsync: false,
            ..PostgresOptions::new(self.0.join("postgres"), free_port())
        }
    }

    fn kafka(&self) -> KafkaOptions {
        let options = KafkaOptions::new(self.0.join("kafka"), free_port());
        KafkaOptions {
            quick_start: true,
            heap_mb: 256,
            ..options
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the scratch directory goes");
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Waits until a condition is true, and fails after `limit`.
fn until(what: &str, limit: Duration, condition: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !condition() {
        ensure!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[tokio::test]
async fn both_start_survive_a_kill_and_start_again_on_their_data() -> Result<()> {
    let scratch = Scratch::new("both");
    let (postgres, kafka) = tokio::try_join!(
        PostgresServer::start(scratch.postgres()),
        KafkaServer::start(scratch.kafka())
    )?;
    let cluster = fs::read_to_string(scratch.0.join("kafka/data/meta.properties"))?;

    postgres.kill().await;
    kafka.kill().await;
    ensure!(
        !listens(postgres.port()) && !listens(kafka.port()),
        "killed servers listen"
    );
    let began = Instant::now();
    tokio::try_join!(postgres.start_again(), kafka.start_again())?;
    println!("warm start of both after a kill: {:?}", began.elapsed());
    ensure!(listens(postgres.port()) && listens(kafka.port()));

    tokio::join!(postgres.stop(), kafka.stop());
    let began = Instant::now();
    tokio::try_join!(postgres.start_again(), kafka.start_again())?;
    println!("warm start of both after a stop: {:?}", began.elapsed());
    let began = Instant::now();
    tokio::join!(postgres.stop(), kafka.stop());
    println!("stop of both: {:?}", began.elapsed());
    ensure!(fs::read_to_string(scratch.0.join("kafka/data/meta.properties"))? == cluster);
    Ok(())
}

#[tokio::test]
async fn second_instance_and_taken_port_are_refused() -> Result<()> {
    let scratch = Scratch::new("refused");
    let server = PostgresServer::start(scratch.postgres()).await?;
    let error = PostgresServer::start(scratch.postgres())
        .await
        .err()
        .context("started twice")?;
    ensure!(
        matches!(&error, ServerError::InUse { owner, .. } if *owner == std::process::id().to_string()),
        "{error}"
    );
    server.stop().await;

    let other = Scratch::new("taken");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let options = PostgresOptions {
        port: listener.local_addr()?.port(),
        ..other.postgres()
    };
    let error = PostgresServer::start(options)
        .await
        .err()
        .context("took a taken port")?;
    ensure!(matches!(error, ServerError::PortTaken { .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_paused_postgres_stops_and_resumes() -> Result<()> {
    let scratch = Scratch::new("paused");
    let server = PostgresServer::start(scratch.postgres()).await?;
    let pid = server.pid().context("no process")?;
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next())
    };
    server.pause();
    until("paused", Duration::from_secs(5), || state() == Some('T'))?;
    server.resume();
    until("resumed", Duration::from_secs(5), || state() != Some('T'))?;
    server.pause();
    let began = Instant::now();
    server.stop().await;
    ensure!(
        began.elapsed() < Duration::from_secs(10),
        "a paused server did not stop"
    );
    Ok(())
}

#[tokio::test]
async fn stale_lock_that_names_a_living_process_does_not_hinder() -> Result<()> {
    let scratch = Scratch::new("stale");
    let server = PostgresServer::start(scratch.postgres()).await?;
    server.stop().await;
    // This simulates a crash after which the pid belongs to another process: this one.
    let stale = format!("{}\n{}\n", std::process::id(), scratch.0.display());
    fs::write(scratch.0.join("postgres/data/postmaster.pid"), stale)?;
    server.start_again().await?;
    ensure!(listens(server.port()));
    Ok(())
}

#[tokio::test]
async fn start_given_up_at_any_moment_leaves_nothing_and_can_be_made_again() -> Result<()> {
    let scratch = Scratch::new("given-up");
    for patience_ms in [20, 300, 900, 1_800] {
        let start = async {
            tokio::try_join!(
                PostgresServer::start(scratch.postgres()),
                KafkaServer::start(scratch.kafka())
            )
        };
        drop(tokio::time::timeout(Duration::from_millis(patience_ms), start).await);
    }
    let (postgres, kafka) = tokio::try_join!(
        PostgresServer::start(scratch.postgres()),
        KafkaServer::start(scratch.kafka())
    )?;
    ensure!(listens(postgres.port()) && listens(kafka.port()));
    Ok(())
}

const PARENT: &str = "SAGA_SERVERS_TEST_PARENT";

/// This is no test by itself: the next test runs it as another process, to kill it.
#[tokio::test]
async fn parent_of_servers() -> Result<()> {
    let Some(home) = std::env::var_os(PARENT) else {
        return Ok(());
    };
    let home = Scratch(PathBuf::from(home));
    let (postgres, kafka) = tokio::try_join!(
        PostgresServer::start(home.postgres()),
        KafkaServer::start(home.kafka())
    )?;
    println!("\nports {} {}", postgres.port(), kafka.port());
    std::future::pending::<()>().await;
    Ok(())
}

fn start_parent(home: &Path) -> Result<(std::process::Child, Vec<u16>)> {
    let mut parent = Command::new(std::env::current_exe()?)
        .args(["--exact", "parent_of_servers", "--nocapture"])
        .env(PARENT, home)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(parent.stdout.take().context("no output")?);
    let ports = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("ports ").map(str::to_owned))
        .context("the servers did not start")?;
    let ports = ports
        .split(' ')
        .map(|port| Ok(port.parse()?))
        .collect::<Result<_>>()?;
    Ok((parent, ports))
}

#[tokio::test]
async fn servers_of_a_killed_parent_end_and_their_data_serves_the_next() -> Result<()> {
    let scratch = Scratch::new("killed-parent");
    for round in 0..2 {
        let began = Instant::now();
        let (mut parent, ports) = start_parent(&scratch.0)?;
        println!("round {round}: ready after {:?}", began.elapsed());
        parent.kill()?;
        parent.wait()?;
        // The next round starts at once, while these servers still stop; after the last round all must end.
        if round == 1 {
            until(
                "the servers end with their parent",
                Duration::from_secs(20),
                || !ports.iter().copied().any(listens),
            )?;
        }
    }
    until(
        "nothing runs in the directory",
        Duration::from_secs(20),
        || {
            let inside = |path: &Path| path.starts_with(&scratch.0);
            !fs::read_dir("/proc")
                .into_iter()
                .flatten()
                .flatten()
                .any(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| inside(&cwd)))
        },
    )
}
