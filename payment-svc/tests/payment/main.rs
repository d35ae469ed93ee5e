//! The payment service on a real Postgres.

mod calls;
mod frame;
mod gateway;
mod http;
mod service;
