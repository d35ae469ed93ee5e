//! Runs the broker as a container, on a machine without Java.
//!
//! The Docker client stays attached: it is our child process, passes signals on, and ends with us. `--rm` then removes
//! the container. The log is in a volume of the engine, because the image's user could not write into a directory of
//! ours.

use super::properties::COMMON;
use crate::{fetch, process};
use sha2::{Digest, Sha256};
use std::{env, os::unix::ffi::OsStrExt, path::Path, process::Command};

const PUBLIC_IMAGE: &str = "apache/kafka:4.1.0";
const DATA: &str = "/var/lib/kafka/data";

pub(super) fn image() -> String {
    env::var("SAGA_KAFKA_IMAGE").unwrap_or_else(|_| PUBLIC_IMAGE.to_owned())
}

/// Returns the name of the container and the volume, which is derived from the data directory.
pub(super) fn name(home: &Path) -> String {
    let digest = Sha256::digest(home.as_os_str().as_bytes());
    format!("saga-kafka-{}", fetch::hex(&digest[..6]))
}

fn docker(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments);
    command
}

/// Fails with the reason if there is no engine.
pub(super) async fn available() -> Result<(), String> {
    let asked = docker(&["version", "--format", "{{.Server.Version}}"]);
    match process::run_tool("docker version", asked, None).await {
        Ok(_) => Ok(()),
        Err(_) => Err("no Docker engine answers".to_owned()),
    }
}

/// Removes the container that a killed run has left. Usually there is none.
pub(super) async fn remove(name: &str) {
    drop(process::run_tool("docker rm", docker(&["rm", "--force", name]), None).await);
}

pub(super) async fn signal(name: &str, signal: &str) {
    let sent = docker(&["kill", "--signal", signal, name]);
    if let Err(error) = process::run_tool("docker kill", sent, None).await {
        tracing::warn!(error = %error, container = name, "the signal was not delivered");
    }
}

pub(super) fn run(name: &str, port: u16, heap_mb: u32) -> Command {
    let mut command = docker(&["run", "--rm", "--name", name]);
    command
        .arg("--publish")
        .arg(format!("127.0.0.1:{port}:9092"))
        .arg("--volume")
        .arg(format!("{name}:{DATA}"));
    for (variable, value) in settings(port, heap_mb) {
        command.arg("--env").arg(format!("{variable}={value}"));
    }
    command.arg(image());
    command
}

/// Returns the environment of a container of the public image whose port 9092 is published as `port` on loopback.
pub fn settings(port: u16, heap_mb: u32) -> Vec<(String, String)> {
    let own = [
        (
            "listeners",
            "PLAINTEXT://:9092,BROKER://:9094,CONTROLLER://:9093".to_owned(),
        ),
        (
            "advertised.listeners",
            format!("PLAINTEXT://127.0.0.1:{port},BROKER://localhost:9094"),
        ),
        // The broker calls itself when it verifies transactions, and the published port is not open in the container.
        ("inter.broker.listener.name", "BROKER".to_owned()),
        ("controller.quorum.voters", "1@localhost:9093".to_owned()),
        ("log.dirs", DATA.to_owned()),
    ];
    let common = COMMON
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()));
    let heap = (
        "KAFKA_HEAP_OPTS".to_owned(),
        format!("-Xmx{heap_mb}m -Xms64m"),
    );
    common
        .chain(own)
        .map(|(key, value)| (variable(key), value))
        .chain([heap])
        .collect()
}

/// Returns the image's variable for a setting: `KAFKA_LOG_DIRS` for `log.dirs`.
fn variable(key: &str) -> String {
    format!("KAFKA_{}", key.to_uppercase().replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_listens_on_loopback_only() {
        let command = run("saga-kafka-test", 9_092, 512);
        let arguments: Vec<_> = command.get_args().filter_map(|one| one.to_str()).collect();
        assert!(arguments.contains(&"127.0.0.1:9092:9092"), "{arguments:?}");
        assert!(
            arguments.contains(&"KAFKA_AUTO_CREATE_TOPICS_ENABLE=false"),
            "{arguments:?}"
        );
        assert_eq!(arguments.last(), Some(&image().as_str()));
    }
}
