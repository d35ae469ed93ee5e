//! The content of the page as a person sees it, and a person's actions on it.

use super::{PATIENCE, SHELF, browser::Browser};
use crate::saga::Saga;
use anyhow::{Context, Result};
use saga_test_support::environment::until;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A page in a browser, and the system behind it.
pub struct Page {
    pub browser: Browser,
    pub saga: Saga,
}

impl Page {
    pub async fn open(name: &str, saga: Saga) -> Result<Self> {
        let browser = Browser::start(name).await?;
        browser.look(1360, 1000, "light").await?;
        browser.open(&saga.orchestrator_url("/")).await?;
        let page = Self { browser, saga };
        page.until(
            "the page is live",
            "return document.querySelector('#connection.live') !== null",
        )
        .await;
        page.until(
            "products are offered",
            "return document.querySelectorAll('#own option').length > 2",
        )
        .await;
        Ok(page)
    }

    /// Waits until a script returns `true`.
    pub async fn until(&self, what: &str, script: &str) {
        until(what, PATIENCE, || async {
            let said = self
                .browser
                .script(script)
                .await
                .map_err(|error| format!("{error:#}"))?;
            if said == json!(true) {
                Ok(())
            } else {
                Err(said.to_string())
            }
        })
        .await;
    }

    /// Presses a button. Returns the card of the new order when it shows the status.
    pub async fn order(&self, kind: &str, status: &str) -> Result<Value> {
        let newest = self.newest().await?;
        self.browser.click(&format!("button[value={kind}]")).await?;
        self.newer(&newest, status).await
    }

    /// Returns the saga id of the newest card.
    pub async fn newest(&self) -> Result<Value> {
        Ok(self
            .cards()
            .await?
            .first()
            .map_or(Value::Null, |card| card["id"].clone()))
    }

    /// Returns a card newer than `than` when it shows the status.
    pub async fn newer(&self, than: &Value, status: &str) -> Result<Value> {
        Ok(until(status, PATIENCE, || async {
            let cards = self.cards().await.map_err(|error| format!("{error:#}"))?;
            let newest = cards.first().cloned().unwrap_or_default();
            let is_it = newest["id"] != *than && newest["status"] == status;
            if is_it {
                Ok(newest)
            } else {
                Err(newest.to_string())
            }
        })
        .await)
    }

    pub async fn card(&self, id: &str, status: &str) -> Value {
        until(status, PATIENCE, || async {
            let cards = self.cards().await.map_err(|error| format!("{error:#}"))?;
            let card = cards
                .iter()
                .find(|card| card["id"] == id)
                .cloned()
                .unwrap_or_default();
            if card["status"] == status {
                Ok(card)
            } else {
                Err(card.to_string())
            }
        })
        .await
    }

    /// Returns the cards, newest first.
    pub async fn cards(&self) -> Result<Vec<Value>> {
        let cards = "return [...document.querySelectorAll('.card')].map((card) => ({
            id: card.dataset.saga,
            status: card.querySelector('.chip').textContent,
            why: card.querySelector('.why').textContent,
            took: card.querySelector('.took').textContent,
            steps: [...card.querySelectorAll('[data-step]')].map(({dataset}) => [dataset.step, dataset.state]),
        }))";
        Ok(self
            .browser
            .script(cards)
            .await?
            .as_array()
            .context("cards")?
            .clone())
    }

    pub async fn text(&self, selector: &str) -> Result<String> {
        let script = format!("return document.querySelector({selector:?})?.innerText ?? ''");
        Ok(self
            .browser
            .script(&script)
            .await?
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// Returns the available, reserved and sold pieces of the product `SHELF`.
    pub async fn stock(&self) -> Result<Vec<i64>> {
        let text = format!(
            "return [...document.querySelectorAll('[data-product=\"{SHELF}\"] td')].slice(1).map((cell) => Number(cell.textContent))"
        );
        Ok(serde_json::from_value(self.browser.script(&text).await?)?)
    }

    pub async fn screenshot(&self, name: &str) -> Result<()> {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("page/{name}.png"));
        self.browser.screenshot(&path).await
    }

    /// Sends an operator's action to the orchestrator.
    pub async fn ask(&self, id: &str, action: &str, body: Value) -> Result<()> {
        let url = self.saga.orchestrator_url(&format!("/sagas/{id}/{action}"));
        let answer = self.saga.http.post(url).json(&body).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    pub async fn start_saga(&self, definition: &str, key: &str, input: Value) -> Result<String> {
        let body = json!({"definition": definition, "businessKey": key, "input": input});
        let url = self.saga.orchestrator_url("/sagas");
        let answer = self
            .saga
            .http
            .post(url)
            .json(&body)
            .send()
            .await?
            .error_for_status()?;
        let answer: Value = answer.json().await?;
        Ok(answer["id"].as_str().context("an id")?.to_owned())
    }
}
