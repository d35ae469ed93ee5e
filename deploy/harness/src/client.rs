//! The harness's client. It does what a user does: places and cancels orders, and reads orders, stock, payments and
//! sagas.

use crate::system::{PATIENCE, Service, System};
use anyhow::{Context, Result, bail, ensure};
use saga_audit::{Finding, Journal, Settings, Sources, audit};
use saga_test_support::environment::until;
use serde_json::{Value, json};
use uuid::Uuid;

/// An order to place.
#[derive(Clone, Debug)]
pub struct OrderRequest {
    pub customer: Uuid,
    pub body: Value,
    pub headers: Vec<(String, String)>,
}

/// An order as order-svc's API returns it.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: Uuid,
    pub saga: Uuid,
    pub body: Value,
}

impl Order {
    pub fn status(&self) -> &str {
        self.body["status"].as_str().unwrap_or_default()
    }

    pub fn reason(&self) -> &str {
        self.body["reason"]["code"].as_str().unwrap_or_default()
    }

    fn from_body(body: Value) -> Result<Self> {
        let id = |key: &str| -> Result<Uuid> {
            Ok(body[key]
                .as_str()
                .with_context(|| format!("no {key} in {body}"))?
                .parse()?)
        };
        Ok(Self {
            id: id("id")?,
            saga: id("sagaId")?,
            body,
        })
    }
}

impl OrderRequest {
    /// Builds an order for one product; `price` is in major units.
    pub fn one(product: Uuid, quantity: u32, price: f64) -> Self {
        let customer = Uuid::new_v4();
        let items = json!([{"productId": product, "quantity": quantity, "price": price}]);
        Self {
            customer,
            body: json!({"customerId": customer, "items": items}),
            headers: vec![],
        }
    }

    #[must_use]
    pub fn definition(mut self, name: &str) -> Self {
        self.body["definition"] = json!(name);
        self
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl System {
    /// Creates a product that only the calling test uses, with `available` pieces in stock.
    pub async fn stock_product(&self, available: u64) -> Result<Uuid> {
        let product = Uuid::new_v4();
        self.http
            .put(self.url(Service::Inventory, &format!("/stock/{product}")))
            .json(&json!({"available": available}))
            .send()
            .await?
            .error_for_status()?;
        Ok(product)
    }

    pub async fn post_order(&self, request: &OrderRequest) -> Result<reqwest::Response> {
        let mut builder = self
            .http
            .post(self.url(Service::Order, "/orders"))
            .json(&request.body);
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        Ok(builder.send().await?)
    }

    pub async fn place(&self, request: &OrderRequest) -> Result<Order> {
        let response = self.post_order(request).await?;
        let status = response.status();
        let body: Value = response.json().await?;
        ensure!(status == 201, "POST /orders answered {status}: {body}");
        Order::from_body(body)
    }

    pub async fn order(&self, id: Uuid) -> Result<Order> {
        Order::from_body(self.get(Service::Order, &format!("/orders/{id}")).await?)
    }

    /// Waits until the order has ended (is no longer `PENDING`).
    pub async fn ended(&self, id: Uuid) -> Result<Order> {
        let ended = until(&format!("order {id} ends"), PATIENCE, || async {
            let order = self.order(id).await?;
            if order.status() == "PENDING" {
                let saga = self.saga(id).await?;
                bail!("it is pending; saga: {saga:#}");
            }
            Ok(order)
        })
        .await;
        Ok(ended)
    }

    /// Places an order and waits until it has ended.
    pub async fn place_and_wait(&self, request: &OrderRequest) -> Result<Order> {
        let order = self.place(request).await?;
        self.ended(order.id).await
    }

    pub async fn cancel(&self, id: Uuid) -> Result<(u16, Value)> {
        let url = self.url(Service::Order, &format!("/orders/{id}/cancel"));
        let response = self
            .http
            .post(url)
            .json(&json!({"reason": "changed my mind"}))
            .send()
            .await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    pub async fn saga(&self, id: Uuid) -> Result<Value> {
        self.get(Service::Orchestrator, &format!("/sagas/{id}"))
            .await
    }

    /// Waits until the saga has the status `status`, and returns the saga.
    pub async fn saga_is(&self, id: Uuid, status: &str) -> Result<Value> {
        let reached = until(&format!("saga {id} is {status}"), PATIENCE, || async {
            let saga = self.saga(id).await?;
            ensure!(
                saga["status"] == status,
                "saga {id} is {}: {saga:#}",
                saga["status"]
            );
            Ok(saga)
        })
        .await;
        Ok(reached)
    }

    /// Runs the audit and returns its findings about the orders and sagas in `ids`.
    pub async fn audited(&self, ids: &[Uuid]) -> Result<Vec<Finding>> {
        let database = |service| self.databases[&service].clone();
        let sources = Sources {
            orchestrator: database(Service::Orchestrator),
            order: database(Service::Order),
            inventory: database(Service::Inventory),
            payment: database(Service::Payment),
            brokers: self.env.brokers(),
            kafka: Vec::new(),
            orchestrator_group: Sources::DEFAULT_GROUP.to_owned(),
        };
        let report = audit(&sources, &Journal::default(), &Settings::default()).await?;
        let mut found = report.discrepancies;
        found.retain(|finding| finding.saga.is_some_and(|saga| ids.contains(&saga)));
        Ok(found)
    }

    pub async fn get(&self, service: Service, path: &str) -> Result<Value> {
        let response = self.http.get(self.url(service, path)).send().await?;
        let status = response.status();
        if !status.is_success() {
            bail!(
                "GET {path} of {} answered {status}: {}",
                service.name(),
                response.text().await?
            );
        }
        Ok(response.json().await?)
    }

    /// Returns the available, reserved and sold pieces of a product.
    pub async fn stock(&self, product: Uuid) -> Result<(i64, i64, i64)> {
        let stock = self
            .get(Service::Inventory, &format!("/stock/{product}"))
            .await?;
        let number = |key: &str| {
            stock[key]
                .as_i64()
                .with_context(|| format!("no {key}: {stock}"))
        };
        Ok((number("available")?, number("reserved")?, number("sold")?))
    }

    /// Returns the status of an order's payment in lower case, or `none` if payment-svc has no payment for the order.
    pub async fn payment_status(&self, order: Uuid) -> Result<String> {
        let url = self.url(Service::Payment, &format!("/payments/{order}"));
        let response = self.http.get(url).send().await?;
        if response.status() == 404 {
            return Ok("none".to_owned());
        }
        let body: Value = response.error_for_status()?.json().await?;
        Ok(body["status"].as_str().unwrap_or_default().to_lowercase())
    }
}
