//! A private Postgres and a private, real Kafka, as child processes.
//!
//! The standalone mode gives a newcomer the whole system with one command, and tests get real servers where there is no
//! container engine. Both need the same things: servers that nobody had to install, that die with their parent whatever
//! happens to it, and that start again on the data that a crash left behind.
//!
//! ```text
//!  data_dir/postgres/  instance.lock  data/  postgres.log  superuser.password  <role>.password
//!  data_dir/kafka/     instance.lock  data/  kafka.log     server.properties   log4j2.properties
//! ```
//!
//! **One owner.** The kernel's lock on `instance.lock` is held as long as the owning process lives. Whoever holds it may
//! end what still runs in the directory and remove stale lock files: nothing there can belong to somebody else.
//!
//! **No orphans.** See the module `process`: children are signaled by the kernel when the parent dies.
//!
//! **Half-made is not made.** Clusters, formatted logs and downloads get their final name when they are complete.
//!
//! **Root.** Postgres refuses to run as root, so it drops to `postgres` or `nobody`; data below a directory that is closed
//! to that account, such as `/root`, is kept in `/var/lib/saga`, and a link named `elsewhere` leads there.
//!
//! Environment: `JAVA_HOME`, `KAFKA_HOME`, `SAGA_POSTGRES_BIN`, `SAGA_KAFKA_IMAGE`, `SAGA_MAVEN_URL`, `XDG_CACHE_HOME` and
//! the usual proxy variables.

mod directory;
mod error;
mod fetch;
mod kafka;
mod port;
mod postgres;
mod process;

pub use directory::{DirectoryLock, read_or_make_secret};
pub use error::ServerError;
pub use fetch::install_crypto_provider;
pub use kafka::{
    KafkaOptions, KafkaServer, answers as kafka_answers,
    container_settings as kafka_container_settings, kafka_jars,
};
pub use port::free_port;
pub use postgres::{PostgresOptions, PostgresServer, role_password};
