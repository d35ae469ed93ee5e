//! Tests the payment service on a real Postgres.

mod calls;
mod fixture;
mod gateway;
mod http;
mod service;
