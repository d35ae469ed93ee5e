//! Tests `saga` as its users run it: the real binary with its child processes, on separate ports and in a separate
//! directory.

mod page;
mod saga;

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use saga::{Saga, descendants};
use saga_service::{
    Service, config,
    lifecycle::{DRAIN_DEADLINE, Shutdown},
};
use saga_test_support::environment::until;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::{collections::BTreeMap, time::Duration};
use tokio::{net::TcpListener, process::Command};

const SHELF: &str = "a0000000-0000-4000-8000-000000000001";
/// Far above the time that anything here takes on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn order(quantity: u32) -> Value {
    json!({
        "customerId": "c0000000-0000-4000-8000-000000000009",
        "productId": SHELF,
        "quantity": quantity,
        "amount": 10,
    })
}

#[tokio::test]
async fn the_commands_of_the_banner_work() -> Result<()> {
    let mut saga = Saga::new("banner").await?;
    saga.start(&[]).await?;
    let mut ends = Vec::new();
    for line in saga.printed("  curl ")? {
        let output = Command::new("sh")
            .args(["-c", &line])
            .output()
            .await
            .context("curl")?;
        let order: Value = serde_json::from_slice(&output.stdout).context(line)?;
        ends.push((order["status"].clone(), order["reason"]["code"].clone()));
    }
    let expected = [
        (json!("CONFIRMED"), Value::Null),
        (json!("CANCELLED"), json!("payment_declined")),
        (json!("CANCELLED"), json!("out_of_stock")),
    ];
    assert_eq!(ends, expected);
    for line in saga.printed("http")? {
        for url in line
            .split_whitespace()
            .filter(|word| word.starts_with("http"))
        {
            let status = saga.http.get(url).send().await?.status();
            // The services have no resource at their root and answer 404.
            ensure!(
                status.is_success() || status == StatusCode::NOT_FOUND,
                "{url}: {status}"
            );
        }
    }
    a_second_instance_is_refused(&saga).await?;
    a_taken_port_is_named(&saga).await?;
    no_role_reads_anothers_tables(&saga).await?;
    saga.stop(libc::SIGINT).await
}

#[tokio::test]
async fn ctrl_c_ends_in_silence() -> Result<()> {
    let mut saga = Saga::new("silence").await?;
    saga.start(&[]).await?;
    let order = saga.http.post(saga.order_url("/orders")).json(&order(1));
    let order: Value = order.send().await?.json().await?;
    confirmed(&saga, order["id"].as_str().context("an id")?).await;
    let before = saga.said().lines().count();
    saga.stop(libc::SIGINT).await?;
    let said = saga.said();
    let loud: Vec<&str> = said
        .lines()
        .skip(before)
        .filter(|line| ["WARN", "ERROR"].iter().any(|level| line.contains(level)))
        .collect();
    ensure!(loud.is_empty(), "{}", loud.join("\n"));
    Ok(())
}

async fn a_second_instance_is_refused(saga: &Saga) -> Result<()> {
    let (code, said) = saga.run_beside(&[]).await?;
    ensure!(code == Some(1), "{said}");
    ensure!(said.contains(&format!("process {}", saga.pid()?)), "{said}");
    ensure!(said.contains("--data-dir"), "{said}");
    Ok(())
}

async fn a_taken_port_is_named(saga: &Saga) -> Result<()> {
    let elsewhere = saga.directory().join("elsewhere");
    let elsewhere = elsewhere.to_str().context("a path")?;
    let free = saga_servers::free_port().to_string();
    // Moves every port except Kafka's.
    let services = [
        "--order-port",
        "--orchestrator-port",
        "--inventory-port",
        "--payment-port",
    ];
    let mut moved: Vec<&str> = services.iter().flat_map(|flag| [*flag, "0"]).collect();
    moved.extend(["--postgres-port", &free]);
    for (flag, others) in [("--order-port", Vec::new()), ("--kafka-port", moved)] {
        let arguments: Vec<&str> = ["--data-dir", elsewhere]
            .into_iter()
            .chain(others)
            .collect();
        let (code, said) = saga.run_beside(&arguments).await?;
        ensure!(
            code == Some(1) && said.contains("already") && said.contains(flag),
            "{said}"
        );
    }
    Ok(())
}

/// Returns the database URLs in the services' configuration, by service.
fn database_urls(saga: &Saga) -> Result<BTreeMap<&'static str, String>> {
    let names = ["order-svc", "orchestrator", "inventory-svc", "payment-svc"];
    let urls = names.into_iter().map(|name| {
        let text = std::fs::read_to_string(saga.config_file(name))?;
        let table: toml::Table = text.parse()?;
        let url = table["postgres"]["url"].as_str().context("postgres.url")?;
        Ok((name, url.to_owned()))
    });
    urls.collect()
}

async fn no_role_reads_anothers_tables(saga: &Saga) -> Result<()> {
    let urls = database_urls(saga)?;
    for (name, own) in &urls {
        let mut connection = PgConnection::connect(own).await.context(*name)?;
        let tables: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
                .fetch_one(&mut connection)
                .await?;
        ensure!(tables > 0, "{name} has tables of its own");
        let is_superuser: bool = sqlx::query_scalar("SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
            .fetch_one(&mut connection)
            .await?;
        ensure!(!is_superuser, "{name} is an ordinary role");
        for (other, url) in urls.iter().filter(|(other, _)| *other != name) {
            refused(own, database_of(url)?)
                .await
                .with_context(|| format!("{name} in the database of {other}"))?;
        }
        refused(own, "postgres")
            .await
            .with_context(|| format!("{name} in the superuser's database"))?;
    }
    Ok(())
}

fn database_of(url: &str) -> Result<&str> {
    url.rsplit('/').next().context("a database")
}

/// Checks that the role and password of `own` cannot connect to `database`.
async fn refused(own: &str, database: &str) -> Result<()> {
    let (server, _) = own.rsplit_once('/').context("a URL")?;
    let Err(error) = PgConnection::connect(&format!("{server}/{database}")).await else {
        anyhow::bail!("it was let in");
    };
    let code = error
        .as_database_error()
        .and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    ensure!(
        code.as_deref() == Some("42501"),
        "refused, but not for want of the privilege: {error}"
    );
    Ok(())
}

#[tokio::test]
async fn invalid_options_are_refused_with_an_explanation() -> Result<()> {
    let saga = Saga::new("refused").await?;
    let definitions = saga.directory().join("definitions");
    std::fs::create_dir_all(&definitions)?;
    std::fs::write(
        definitions.join("broken.yaml"),
        "name: broken\nversion: 1\nsteps: nonsense\n",
    )?;
    let definitions = definitions.to_str().context("a path")?;
    let check = async |arguments: &[&str], variables: &[(&str, &str)], parts: &[&str]| {
        let (code, said) = saga.run_with(arguments, variables).await?;
        ensure!(code == Some(1), "{said}");
        for part in parts {
            ensure!(said.contains(part), "{part} is not in: {said}");
        }
        ensure!(!said.contains("panic"), "{said}");
        anyhow::Ok(said)
    };
    let said = check(&["--definitions", definitions], &[], &["broken.yaml"]).await?;
    ensure!(
        !said.contains("is up"),
        "said before anything was started: {said}"
    );
    check(
        &[],
        &[("PAYMENT_SVC__NONSENSE", "1")],
        &["payment-svc", "PAYMENT_SVC__NONSENSE"],
    )
    .await?;
    check(&["--postgres-url", "nonsense"], &[], &["--postgres-url"]).await?;
    check(
        &["--kafka-brokers", "127.0.0.1:1"],
        &[],
        &["127.0.0.1:1", "--kafka-brokers"],
    )
    .await?;
    // A service that fails makes the other parts stop, in order.
    let nowhere = (
        "ORDER_SVC__POSTGRES__URL",
        "postgres://order@127.0.0.1:1/orders",
    );
    let said = check(
        &[],
        &[nowhere],
        &["error: order-svc: ", "127.0.0.1:1", "saga: stopped"],
    )
    .await?;
    ensure!(said.contains("Kafka is up"), "{said}");
    Ok(())
}

#[tokio::test]
async fn nothing_accepted_is_lost_when_the_whole_tree_is_killed() -> Result<()> {
    const ORDERS: u32 = 40;
    let mut saga = Saga::new("kill").await?;
    saga.start(&[]).await?;
    let mut accepted = Vec::new();
    for _ in 0..ORDERS {
        let answer = saga
            .http
            .post(saga.order_url("/orders"))
            .json(&order(2))
            .send()
            .await?;
        ensure!(
            answer.status() == StatusCode::CREATED,
            "{}",
            answer.text().await?
        );
        let order: Value = answer.json().await?;
        accepted.push(order["id"].as_str().context("an id")?.to_owned());
    }
    saga.kill_tree().await?;
    saga.start(&[]).await?;
    for id in &accepted {
        confirmed(&saga, id).await;
    }
    let stock: Value = saga
        .http
        .get(saga.inventory_url(&format!("/stock/{SHELF}")))
        .send()
        .await?
        .json()
        .await?;
    assert_eq!(
        stock["available"],
        1000 - 2 * ORDERS,
        "the demo stock was put there once: {stock}"
    );
    saga.stop(libc::SIGTERM).await?;
    saga.start(&[]).await?;
    let after = saga
        .http
        .get(saga.order_url(&format!("/orders/{}", accepted[0])))
        .send()
        .await?;
    ensure!(
        after.status() == StatusCode::OK,
        "orders are still there after a restart"
    );
    let wait = saga
        .http
        .post(saga.order_url("/orders"))
        .header("prefer", "wait=20")
        .json(&order(1))
        .send();
    let order: Value = wait.await?.json().await?;
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    saga.stop(libc::SIGTERM).await
}

async fn confirmed(saga: &Saga, id: &str) {
    until("the order is confirmed", PATIENCE, || async {
        let answer = saga
            .http
            .get(saga.order_url(&format!("/orders/{id}")))
            .send()
            .await?;
        let order: Value = answer.error_for_status()?.json().await?;
        ensure!(order["status"] == "CONFIRMED", "{order}");
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test]
async fn ctrl_c_at_any_moment_of_the_start_stops_everything() -> Result<()> {
    let mut saga = Saga::new("interrupt").await?;
    // The moments begin with the first initdb. Each start finds what the previous start has left unfinished.
    for milliseconds in [20, 500, 1500, 3000, 5000] {
        saga.spawn(&[])?;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        saga.stop(libc::SIGINT)
            .await
            .with_context(|| format!("after {milliseconds} ms"))?;
    }
    saga.start(&[]).await?;
    let children = descendants(saga.pid()?);
    ensure!(!children.is_empty(), "Postgres and Kafka are children");
    // The second signal stops everything at once, without waiting for the drain.
    saga.signal(libc::SIGINT)?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    saga.stop_by(libc::SIGINT, &[0, 1]).await
}

#[tokio::test]
async fn a_service_that_was_left_out_joins_by_the_data_directory() -> Result<()> {
    let mut saga = Saga::new("without").await?;
    saga.start(&["--without", "payment-svc"]).await?;
    let order: Value = saga
        .http
        .post(saga.order_url("/orders"))
        .json(&order(1))
        .send()
        .await?
        .json()
        .await?;
    let id = order["id"].as_str().context("an id")?.to_owned();
    let config =
        config::load::<payment_svc::PaymentService>(Some(&saga.config_file("payment-svc")), None)?;
    let listener = TcpListener::bind(config.http.listen).await?;
    let shutdown = Shutdown::new();
    payment_svc::PaymentService::migrate(&config).await?;
    let joined = tokio::spawn(payment_svc::PaymentService::run(
        config,
        listener,
        shutdown.clone(),
    ));
    confirmed(&saga, &id).await;
    shutdown.drain(DRAIN_DEADLINE).await;
    joined.await??;
    saga.stop(libc::SIGTERM).await
}
