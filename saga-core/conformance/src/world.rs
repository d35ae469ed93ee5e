//! The two things that a scene needs beside Kafka: preparing it, and a look at the effects.

use super::{Description, Look, Names, Request, Unset};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::time::Duration;

/// Time limit of one request or query.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Prepares scenes and reads effects. Implemented by [`Described`], and by the kit's own tests.
#[async_trait]
pub trait World: Send + Sync {
    /// Sets a scene up. It may set further names.
    async fn prepare(&self, names: &mut Names) -> Result<Result<(), Unset>>;

    /// Returns JSON that shows the effects, or the reason why they cannot be seen.
    async fn look(&self, names: &Names) -> Result<Result<Value, String>>;
}

/// Prepares scenes and reads effects over HTTP and SQL, as a description says.
pub struct Described {
    prepare: Vec<Request>,
    look: Option<Look>,
    http: reqwest::Client,
}

impl Described {
    pub fn new(description: &Description) -> Result<Self> {
        // The installation fails if the process has a provider already, which may be used as well.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            prepare: description.prepare.clone(),
            look: description.look.clone(),
            http: reqwest::Client::builder().timeout(TIMEOUT).build()?,
        })
    }

    async fn request(&self, request: &Request, names: &mut Names) -> Result<Result<(), Unset>> {
        let filled = names
            .fill_text(&request.url)
            .and_then(|url| Ok((url, names.fill(&request.body)?)));
        let (url, body) = match filled {
            Ok(filled) => filled,
            Err(unset) => return Ok(Err(unset)),
        };
        let what = format!("{} {url}", request.method);
        let method = request.method.parse().with_context(|| what.clone())?;
        let mut builder = self.http.request(method, &url);
        if !body.is_null() {
            builder = builder.json(&body);
        }
        let response = builder.send().await.with_context(|| what.clone())?;
        let status = response.status();
        let text = response.text().await.with_context(|| what.clone())?;
        if !status.is_success() {
            bail!("{what} answered {status}: {text}");
        }
        for (name, pointer) in &request.capture {
            let answer: Value = serde_json::from_str(&text)
                .with_context(|| format!("{what} answered no JSON: {text}"))?;
            let value = answer
                .pointer(pointer)
                .with_context(|| format!("{what} answered no {pointer}: {text}"))?;
            names.set(name, value.clone());
        }
        Ok(Ok(()))
    }

    async fn look_over_http(&self, url: &str, pointers: &[String]) -> Result<Value> {
        let response = self.http.get(url).send().await.context(url.to_owned())?;
        if response.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(Value::Null);
        }
        let answer: Value = response.error_for_status()?.json().await?;
        if pointers.is_empty() {
            return Ok(answer);
        }
        let at = |pointer: &String| answer.pointer(pointer).cloned().unwrap_or_default();
        Ok(pointers.iter().map(at).collect())
    }
}

/// Runs the description's query. The description's author writes the query; only ids that the kit has made are filled
/// in.
async fn look_into_postgres(url: &str, query: String) -> Result<Value> {
    let mut connection = PgConnection::connect(url)
        .await
        .context("connecting to look at the effects")?;
    let rows: Vec<Option<String>> = sqlx::query_scalar(AssertSqlSafe(query.clone()))
        .fetch_all(&mut connection)
        .await
        .with_context(|| query)?;
    connection.close().await?;
    Ok(Value::from(rows))
}

#[async_trait]
impl World for Described {
    async fn prepare(&self, names: &mut Names) -> Result<Result<(), Unset>> {
        for request in &self.prepare {
            if let Err(unset) = self
                .request(request, names)
                .await
                .context("preparing a scene")?
            {
                return Ok(Err(unset));
            }
        }
        Ok(Ok(()))
    }

    async fn look(&self, names: &Names) -> Result<Result<Value, String>> {
        match &self.look {
            None => Ok(Err("the description has no look".to_owned())),
            Some(Look::Http { http, pointers }) => match names.fill_text(http) {
                Ok(url) => Ok(Ok(self.look_over_http(&url, pointers).await?)),
                Err(unset) => Ok(Err(unset.to_string())),
            },
            Some(Look::Postgres { postgres, query }) => {
                let filled = names
                    .fill_text(postgres)
                    .and_then(|url| Ok((url, names.fill_text(query)?)));
                match filled {
                    Ok((url, query)) => Ok(Ok(look_into_postgres(&url, query).await?)),
                    Err(unset) => Ok(Err(unset.to_string())),
                }
            }
        }
    }
}
