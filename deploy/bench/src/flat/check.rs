//! Whether history is still whole, and the services answer for its sagas as for those that it was made from.

use super::{
    history::{self, History},
    template::Template,
};
use crate::system::System;
use anyhow::{Context, Result};
use saga_e2e::system::Service;
use uuid::Uuid;

/// Sagas of history that the services are asked for.
const ASKED_FOR: u64 = 20;
const FOUND: u16 = 200;

/// What is wrong; empty if all is well. The services run.
pub async fn history(system: &System, history: &History) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let found = history::count_before(system, history.known.began_ms).await?;
    let expected = history.spread.sagas;
    if found.unsigned_abs() != expected {
        wrong.push(format!(
            "history: {expected} sagas were loaded, {found} are there"
        ));
    }
    for saga in history.spread.sample(ASKED_FOR) {
        let template = history.templates[history.spread.template(saga)];
        for (service, path) in [
            (Service::Orchestrator, "/sagas/"),
            (Service::Order, "/orders/"),
        ] {
            let (like_status, like_body) = answer(system, service, path, template).await?;
            let (status, body) = answer(system, service, path, history.id(saga)).await?;
            let mut expected = Vec::new();
            let change = history.spread.change(saga);
            Template::read(like_body.as_bytes(), &history.known).write(&change, &mut expected);
            if like_status != FOUND || status != FOUND || body.as_bytes() != expected {
                wrong.push(format!(
                    "{path}{}: {status} {body}, but its template's is {like_status} {}",
                    history.id(saga),
                    String::from_utf8_lossy(&expected)
                ));
            }
        }
    }
    Ok(wrong)
}

async fn answer(
    system: &System,
    service: Service,
    path: &str,
    saga: Uuid,
) -> Result<(u16, String)> {
    let url = system.url(service, &format!("{path}{saga}"));
    let answer = system.http.get(&url).send().await;
    let answer = answer.with_context(|| format!("asking for {path}{saga}"))?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
