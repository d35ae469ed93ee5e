//! The inventory service on a real Postgres.

mod frame;
mod handler;
mod http;
mod service;
