//! Runs a private Postgres and a private, real Kafka as child processes.
//!
//! The standalone mode gives a newcomer the whole system with one command, and tests get real servers on machines
//! without a container engine. Both need servers that nobody had to install, that end with their parent process however
//! it ends, and that start again on the data that a crash left behind.
//!
//! ```text
//!  data_dir/postgres/  instance.lock  data/  postgres.log  superuser.password  <role>.password
//!  data_dir/kafka/     instance.lock  data/  kafka.log     server.properties   log4j2.properties
//! ```
//!
//! **One owner.** The owning process holds the kernel's lock on `instance.lock` as long as it lives. The holder may end
//! processes that still run in the directory and remove stale lock files, because they cannot belong to another owner.
//!
//! **No orphans.** The kernel signals the children when the parent dies; see the module `process`.
//!
//! **Complete or absent.** Clusters, formatted logs and downloads get their final name when they are complete.
//!
//! **Root.** Postgres refuses to run as root, so it runs as `postgres` or `nobody`. Data below a directory that this
//! account cannot enter, such as `/root`, is kept in `/var/lib/saga`, and a link named `elsewhere` points there.
//!
//! Environment variables: `JAVA_HOME`, `KAFKA_HOME`, `SAGA_POSTGRES_BIN`, `SAGA_KAFKA_IMAGE`, `SAGA_MAVEN_URL`,
//! `XDG_CACHE_HOME` and the usual proxy variables.

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
