//! Servers as containers, through testcontainers.
//!
//! The ports are chosen here, because an engine that chooses them changes them when a container is stopped and started.
//! The broker's listeners are set here for the same reason: the broker must advertise the port that the host sees.

use super::{reaper, runtime::outlive, unique::unique};
use bollard::{
    Docker,
    models::PortBinding,
    query_parameters::{KillContainerOptionsBuilder, StopContainerOptionsBuilder},
};
use saga_servers::free_port;
use std::{collections::HashMap, env, process::Command, time::Duration};
use testcontainers::{
    ContainerAsync, ContainerRequest, GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor, client::docker_client_instance, wait::LogWaitStrategy},
    runners::AsyncRunner,
};
use tokio::time::timeout;

const POSTGRES_IMAGE: (&str, &str) = ("SAGA_TEST_POSTGRES_IMAGE", "postgres:17-alpine");
const KAFKA_IMAGE: (&str, &str) = ("SAGA_TEST_KAFKA_IMAGE", "apache/kafka:4.1.0");
/// The superuser of a Postgres container.
pub(super) const SUPERUSER: &str = "postgres";
pub(super) const PASSWORD: &str = "postgres";
const POSTGRES_PORT: u16 = 5432;
const KAFKA_PORT: u16 = 9092;
const PULL_LIMIT: Duration = Duration::from_mins(5);
const START_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT_SECS: i32 = 20;

/// The name and the tag of an image.
type Image = (String, String);

fn image((variable, public): (&str, &str)) -> Image {
    let text = env::var(variable).unwrap_or_else(|_| public.to_owned());
    split(&text)
}

/// Splits an image into name and tag. A colon may also precede a registry's port.
fn split(text: &str) -> Image {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        Some(_) | None => (text.to_owned(), "latest".to_owned()),
    }
}

/// Fails with the reason if containers cannot be used: there is no engine, or an image can be neither found nor pulled.
pub(super) async fn available() -> Result<(), String> {
    let docker = docker_client_instance()
        .await
        .map_err(|error| format!("there is no Docker engine: {error}"))?;
    docker
        .ping()
        .await
        .map_err(|error| format!("no Docker engine answers: {error}"))?;
    present(&docker, image(POSTGRES_IMAGE)).await?;
    present(&docker, image(KAFKA_IMAGE)).await
}

async fn present(docker: &Docker, (name, tag): Image) -> Result<(), String> {
    if docker.inspect_image(&format!("{name}:{tag}")).await.is_ok() {
        return Ok(());
    }
    match timeout(PULL_LIMIT, GenericImage::new(&name, &tag).pull_image()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!(
            "the image {name}:{tag} is not here and cannot be pulled: {error}"
        )),
        Err(_) => Err(format!(
            "the image {name}:{tag} was not pulled within {PULL_LIMIT:?}"
        )),
    }
}

/// A running server. Dropping it removes the container.
#[derive(Debug)]
pub(super) struct Container {
    docker: Docker,
    /// `None` only while the container is dropped.
    handle: Option<ContainerAsync<GenericImage>>,
    id: String,
    port: u16,
}

impl Container {
    pub(super) async fn postgres(max_connections: u32) -> Result<Self, String> {
        let (name, tag) = image(POSTGRES_IMAGE);
        // The message appears first for the temporary server that the image runs for its set-up.
        let ready =
            LogWaitStrategy::stdout_or_stderr("database system is ready to accept connections")
                .with_times(2);
        let request = GenericImage::new(name, tag)
            .with_exposed_port(POSTGRES_PORT.tcp())
            .with_wait_for(WaitFor::log(ready))
            .with_env_var("POSTGRES_USER", SUPERUSER)
            .with_env_var("POSTGRES_PASSWORD", PASSWORD)
            .with_cmd([
                "-c".to_owned(),
                "fsync=off".to_owned(),
                "-c".to_owned(),
                "synchronous_commit=off".to_owned(),
                "-c".to_owned(),
                "full_page_writes=off".to_owned(),
                "-c".to_owned(),
                format!("max_connections={max_connections}"),
            ]);
        Self::run(request, "postgres", POSTGRES_PORT, free_port()).await
    }

    pub(super) async fn kafka(heap_mb: u32) -> Result<Self, String> {
        let (name, tag) = image(KAFKA_IMAGE);
        let port = free_port();
        let mut request: ContainerRequest<GenericImage> = GenericImage::new(name, tag)
            .with_exposed_port(KAFKA_PORT.tcp())
            .with_wait_for(WaitFor::message_on_stdout("Kafka Server started"))
            .into();
        for (key, value) in saga_servers::kafka_container_settings(port, heap_mb) {
            request = request.with_env_var(key, value);
        }
        Self::run(request, "kafka", KAFKA_PORT, port).await
    }

    async fn run(
        request: ContainerRequest<GenericImage>,
        server: &str,
        inner_port: u16,
        port: u16,
    ) -> Result<Self, String> {
        let name = unique(&format!("saga-test-{server}"));
        reaper::at_end(&format!("docker rm --force --volumes {name}"));
        let binding = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: Some(port.to_string()),
        };
        let bindings = HashMap::from([(format!("{inner_port}/tcp"), Some(vec![binding]))]);
        let request = request
            .with_container_name(name)
            .with_startup_timeout(START_LIMIT)
            .with_host_config_modifier(move |host| {
                host.publish_all_ports = Some(false);
                host.port_bindings = Some(bindings.clone());
            });
        let docker = docker_client_instance()
            .await
            .map_err(|error| error.to_string())?;
        let container = request
            .start()
            .await
            .map_err(|error| format!("the container of {server} did not start: {error}"))?;
        let id = container.id().to_owned();
        Ok(Self {
            docker,
            handle: Some(container),
            id,
            port,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Calls the engine on the runtime that holds the connections to it.
    async fn call<F>(&self, what: &str, call: impl FnOnce(Docker, String) -> F)
    where
        F: Future<Output = Result<(), bollard::errors::Error>> + Send + 'static,
    {
        outlive(call(self.docker.clone(), self.id.clone()))
            .await
            .unwrap_or_else(|error| panic!("cannot {what} the container: {error}"));
    }

    pub(super) async fn pause(&self) {
        self.call("pause", |docker, id| async move {
            docker.pause_container(&id).await
        })
        .await;
    }

    pub(super) async fn resume(&self) {
        self.call("resume", |docker, id| async move {
            docker.unpause_container(&id).await
        })
        .await;
    }

    pub(super) async fn kill(&self) {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        self.call("kill", |docker, id| async move {
            docker.kill_container(&id, Some(options)).await
        })
        .await;
    }

    pub(super) async fn stop(&self) {
        let options = StopContainerOptionsBuilder::new()
            .t(STOP_LIMIT_SECS)
            .build();
        self.call("stop", |docker, id| async move {
            docker.stop_container(&id, Some(options)).await
        })
        .await;
    }

    pub(super) async fn start(&self) {
        self.call("start", |docker, id| async move {
            docker.start_container(&id, None).await
        })
        .await;
    }
}

impl Drop for Container {
    /// Uses the command line, because a destructor cannot wait for the library. The reaper tries again.
    fn drop(&mut self) {
        // The destructor of testcontainers would need a runtime, which may be gone.
        std::mem::forget(self.handle.take());
        let removed = Command::new("docker")
            .args(["rm", "--force", "--volumes", &self.id])
            .output();
        if let Err(error) = removed {
            tracing::warn!(error = %error, "the container was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_name_is_split_from_its_tag() {
        let check = |text: &str, name: &str, tag: &str| {
            assert_eq!(split(text), (name.to_owned(), tag.to_owned()), "{text}");
        };
        check("postgres:17-alpine", "postgres", "17-alpine");
        check("registry:5000/postgres", "registry:5000/postgres", "latest");
        check("registry:5000/kafka:4", "registry:5000/kafka", "4");
    }
}
