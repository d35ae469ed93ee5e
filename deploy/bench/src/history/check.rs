//! Checks that history is complete, and that the services answer for its sagas as for the templates they were copied
//! from.

use super::{
    loader::{self, History},
    template::Template,
};
use crate::system::System;
use anyhow::{Context, Result};
use saga_harness::system::Service;
use uuid::Uuid;

/// The number of sagas of history that the services are asked for.
const ASKED_FOR: u64 = 20;
const FOUND: u16 = 200;

/// Returns the mistakes that are found; empty if all is well. The services must run.
pub async fn history(system: &System, history: &History) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let found = loader::count_before(system, history.known.began_ms).await?;
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
            let (like_status, like) = answer(system, service, path, template).await?;
            let found = answer(system, service, path, history.id(saga)).await?;
            let (change, mut copy) = (history.spread.change(saga), Vec::new());
            Template::read(like.as_bytes(), &history.known).write(&change, &mut copy);
            let expected = (FOUND, String::from_utf8_lossy(&copy).into_owned());
            if like_status != FOUND || found != expected {
                let id = history.id(saga);
                wrong.push(format!(
                    "{path}{id}: {found:?}, but its template's is {expected:?}"
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
