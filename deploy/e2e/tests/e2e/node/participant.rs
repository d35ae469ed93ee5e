//! The Node participant as a child process, with queries to its database.

use anyhow::{Context, Result, ensure};
use saga_harness::process::Process;
use sqlx::PgPool;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Mutex, PoisonError},
};
use uuid::Uuid;

const NEEDED: &str = "tests of the Node participant need Node 18 or newer and npm (Debian: apt-get install nodejs npm)";
const NODE_MAJOR_MIN: u32 = 18;

/// Ensures that only one installation runs at a time.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Returns the path of `payment-svc/node`.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../payment-svc/node")
}

pub struct NodeParticipant {
    process: Process,
    pool: PgPool,
}

impl NodeParticipant {
    /// Installs the packages that the lock file pins, unless they are installed already.
    pub fn new(brokers: &str, database: &str) -> Result<Self> {
        install()?;
        let log =
            std::env::temp_dir().join(format!("payment-node-{}.log", Uuid::new_v4().simple()));
        let environment = [
            ("SAGA_E2E_SERVICE", "payment-node"),
            ("KAFKA_BROKERS", brokers),
            ("DATABASE_URL", database),
            // For this amount, the gateway errs once for each order and operation.
            (
                "GATEWAY_RULES",
                r#"[{"amountMinor": 1302, "effect": "error", "times": 1}]"#,
            ),
            // Makes the participant forget sagas below the floor almost at once.
            ("UPKEEP_MS", "200"),
        ];
        Ok(Self {
            process: Process {
                binary: directory().join("src/main.js"),
                environment: environment
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
                log,
                child: None,
            },
            pool: PgPool::connect_lazy(database)?,
        })
    }

    pub fn start(&mut self) -> Result<()> {
        self.process.spawn()
    }

    /// Sends SIGTERM and returns when the participant has drained.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop()
    }

    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Sets an environment variable. Must be called before the participant is started.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let environment = &mut self.process.environment;
        environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Returns the exit status if the process has exited by itself.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// Returns the last lines of the participant's log.
    pub fn tail(&self) -> String {
        self.process.tail()
    }

    pub async fn payment_status(&self, order: Uuid) -> Result<String> {
        let status = sqlx::query_scalar("SELECT status FROM payment WHERE order_id = $1")
            .bind(order)
            .fetch_optional(&self.pool)
            .await?;
        Ok(status.unwrap_or_else(|| "none".to_owned()))
    }

    /// Returns true if the barrier has a record of this saga.
    pub async fn remembers(&self, saga: Uuid) -> Result<bool> {
        let known = "SELECT EXISTS (SELECT FROM inbox WHERE saga_id = $1)";
        Ok(sqlx::query_scalar(known)
            .bind(saga)
            .fetch_one(&self.pool)
            .await?)
    }

    /// Returns how many charges the gateway has approved.
    pub async fn charges(&self) -> Result<i64> {
        let approved = "SELECT count(*) FROM gateway_ledger \
             WHERE operation = 'charge' AND decision = 'approved'";
        Ok(sqlx::query_scalar(approved).fetch_one(&self.pool).await?)
    }

    /// Returns the amount that the gateway has charged and not refunded, in minor units.
    pub async fn net_charged(&self) -> Result<i64> {
        let sum = "SELECT coalesce(sum(CASE operation WHEN 'charge' THEN amount_minor ELSE -amount_minor END), 0)::bigint \
             FROM gateway_ledger WHERE decision = 'approved'";
        Ok(sqlx::query_scalar(sum).fetch_one(&self.pool).await?)
    }
}

/// Kills the process, so that a failed test leaves no member behind in a consumer group that other tests use.
impl Drop for NodeParticipant {
    fn drop(&mut self) {
        drop(self.process.kill());
    }
}

fn install() -> Result<()> {
    let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let version = Command::new("node")
        .arg("--version")
        .output()
        .context(NEEDED)?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    ensure!(
        major >= Some(NODE_MAJOR_MIN),
        "{NEEDED}; there is Node {version}"
    );
    let lock = fs::read(directory().join("package-lock.json"))?;
    let stamp = directory().join("node_modules/.installed");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let npm = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(directory())
        .output()
        .context(NEEDED)?;
    ensure!(
        npm.status.success(),
        "npm ci in payment-svc/node: {}\n{}",
        npm.status,
        String::from_utf8_lossy(&npm.stderr)
    );
    fs::write(stamp, lock)?;
    Ok(())
}
