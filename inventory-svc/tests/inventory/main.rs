//! Tests the inventory service on a real Postgres.

mod fixture;
mod handler;
mod http;
mod service;
