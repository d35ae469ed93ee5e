//! The pure core of the saga orchestrator: definitions, instances, decisions, the barrier and the wire contract.
//! It does no I/O and reads no clock and no randomness: time, ids and attempt numbers arrive inside the inputs.
//!
//! ```text
//!   YAML ──▶ definition ─────────────┐
//!                                    ▼
//!   saga.inputs ──▶ message::Input ──▶ transition ──▶ instance (stored)   ──▶ view: timers, waiting on
//!   (start, reply, timer, action)        │  pure                │
//!                                        ▼                      ▼
//!                                  commands to participants   lifecycle events to saga.events
//!                                        │
//!                                        ▼
//!                                  barrier: which commands a participant may run
//! ```
//!
//! Everything that can move a saga is an input, and [`transition::transition`] is the one function that applies an
//! input: the orchestrator, the property tests and the simulation call the same function. The participant's side is the
//! table in [`barrier`]; it makes compensating an unknown outcome safe.
//!
//! # The words
//!
//! | Term | Here | On the wire and in tables |
//! |---|---|---|
//! | saga definition | [`definition::SagaDefinition`] | `definition`, `definition_version` |
//! | saga instance | [`instance::SagaInstance`], [`ids::SagaId`] | `saga` |
//! | saga log | [`instance::LogEntry`], [`instance::LifecycleEvent`] | `log` |
//! | step, participant | [`definition::Step`] | `saga-step`, `participant` |
//! | command, reply | [`message::Command`], [`message::Reply`], [`message::Outcome`] | `<participant>.commands`, `saga.inputs` |
//! | compensation | [`message::Direction::Compensation`] | `compensation` |
//! | resolve: ask whether a step was done | [`message::Direction::Resolve`] | `<action>.resolve` |
//! | compensatable, pivot, retriable | [`definition::StepKind`] | `kind` |
//! | needs a person | [`instance::SagaStatus::Parked`] | `parked` |
//! | inbox | [`barrier::Mark`] | `inbox` |

pub mod barrier;
pub mod definition;
pub mod ids;
pub mod instance;
pub mod json;
pub mod message;
pub mod mutant;
pub mod retry;
pub mod secret;
pub mod transition;
pub mod yaml;
