//! `GET /orders?status=&customerId=&limit=&cursor=`

use super::{answer, app::App, cursor};
use crate::{
    domain::{
        limits::{DEFAULT_PAGE, MAX_PAGE},
        order::parse_id,
    },
    store::{self, order::Filter},
    view::OrderView,
};
use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use saga_service::http::Problem;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A page of orders, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OrderPage<'a> {
    orders: Vec<OrderView<'a>>,
    /// The cursor of the next page; left out on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// The parsed query.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    filter: Filter,
    limit: u32,
}

type Parameters = Vec<(String, String)>;

/// Lists orders, newest first.
#[utoipa::path(
    get,
    path = "/orders",
    tag = "orders",
    params(
        ("status" = Option<String>, Query, description = "PENDING, CONFIRMED or CANCELLED"),
        ("customerId" = Option<uuid::Uuid>, Query, description = "Orders of this customer"),
        ("limit" = Option<u32>, Query, description = "1 to 100, 20 if not given"),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before, with the same filter"),
    ),
    responses(
        (status = 200, description = "A page", body = OrderPage),
        (status = 400, description = "A parameter is wrong or unknown", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list_orders(
    State(app): State<Arc<App>>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) =
        parameters.map_err(|error| Problem::bad_request(format!("the query: {error}")))?;
    let wanted = parse(&parameters)?;
    let list = async {
        let mut connection = app.reporting.acquire().await?;
        // One order more than shown, to know if there is a next page.
        store::order::list(&mut connection, wanted.filter, wanted.limit + 1).await
    };
    let mut orders = list.await.map_err(|error: sqlx::Error| {
        Problem::dependency_unavailable("orders could not be listed", &error)
    })?;
    let more = orders.len() > wanted.limit as usize;
    orders.truncate(wanted.limit as usize);
    let next_cursor = orders
        .last()
        .filter(|_| more)
        .map(|last| cursor::encode(last.id, wanted.filter));
    let page = OrderPage {
        orders: orders.iter().map(OrderView::of).collect(),
        next_cursor,
    };
    let body = serde_json::to_string(&page)
        .map_err(|error| Problem::dependency_unavailable("orders could not be listed", &error))?;
    Ok(answer::json_text(StatusCode::OK, body))
}

fn parse(parameters: &Parameters) -> Result<Wanted, Problem> {
    let mut wanted = Wanted {
        filter: Filter::default(),
        limit: DEFAULT_PAGE,
    };
    let mut last_page = None;
    for (n, (name, value)) in parameters.iter().enumerate() {
        if parameters[..n].iter().any(|(earlier, _)| earlier == name) {
            return Err(answer::invalid_parameter(name, "is there twice"));
        }
        let wrong = |message: String| answer::invalid_parameter(name, message);
        match name.as_str() {
            "status" => wanted.filter.status = Some(value.parse().map_err(wrong)?),
            "customerId" => {
                let id = parse_id(value).ok_or_else(|| wrong("must be a UUID".to_owned()))?;
                wanted.filter.customer_id = Some(id);
            }
            "limit" => {
                wanted.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MAX_PAGE).contains(limit))
                    .ok_or_else(|| wrong(format!("must be a whole number from 1 to {MAX_PAGE}")))?;
            }
            "cursor" => last_page = Some(value),
            _ => {
                let known = "is unknown; known are status, customerId, limit, cursor";
                return Err(wrong(known.to_owned()));
            }
        }
    }
    if let Some(text) = last_page {
        let before = cursor::decode(text, wanted.filter);
        let before = before.ok_or_else(|| {
            answer::invalid_parameter("cursor", "is not one of a listing with this filter")
        })?;
        wanted.filter.before = Some(before);
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::order::OrderStatus;
    use uuid::Uuid;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn parameters_are_read() {
        let customer = Uuid::from_u128(5);
        let filter = Filter {
            status: Some(OrderStatus::Pending),
            customer_id: Some(customer),
            before: None,
        };
        let wanted = parse(&parameters(&[
            ("cursor", &cursor::encode(Uuid::from_u128(9), filter)),
            ("limit", "7"),
            ("status", "PENDING"),
            ("customerId", &customer.to_string()),
        ]));
        let filter = Filter {
            before: Some(Uuid::from_u128(9)),
            ..filter
        };
        assert_eq!(wanted.expect("wanted"), Wanted { filter, limit: 7 });
    }

    #[test]
    fn every_bad_parameter_is_named() {
        for (name, value) in [
            ("status", "pending"),
            ("status", ""),
            ("customerId", "7"),
            ("customerId", "x\0"),
            ("limit", "0"),
            ("limit", "101"),
            ("limit", "-1"),
            ("limit", "ten"),
            ("cursor", "x"),
            ("color", "red"),
        ] {
            let problem = parse(&parameters(&[(name, value)])).expect_err("refused");
            assert_eq!(problem.status, 400);
            assert_eq!(problem.errors[0].field, name, "{value}");
        }
        assert!(parse(&parameters(&[("limit", "1"), ("limit", "2")])).is_err());
    }
}
