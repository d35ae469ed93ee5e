//! An exhaustive model of the protocol as built: every order in which things can happen to one saga, under bounded
//! trouble, is walked through with [`stateright`], and every promise is looked at in every state.
//!
//! The model shares no line with the product. It writes the protocol down a second time, from DESIGN.md sections 2 to
//! 5 and from reading the code, so that a mistake in the thinking shows here and a mistake in the code shows in the
//! simulation. Where both are right, both hold; where a rule is missing, each has a counterexample.
//!
//! ```text
//!   inputs (one partition) ──▶ owner ──▶ store: live, history        rival: read … commit
//!        ▲  ▲  ▲                 │  └──▶ events told
//!        │  │  └─ timers ◀───────┤
//!        │  └──── people         ▼
//!        └─────── participant: log ─▶ barrier, effects, open call ─▶ replies          (one for each step)
//! ```
//!
//! # The words
//!
//! A [`world::World`] is a state of the whole system, an [`world::Event`] what can happen to it, a
//! [`world::Budget`] how much trouble there may still be. A [`world::Scenario`] is a definition with a budget, and
//! [`rules::Rule`]s are what a scenario can be deprived of.
//!
//! | Room | What it is |
//! |---|---|
//! | [`saga`] | the saga's decisions: replies, timers, actions, both directions |
//! | [`orchestrator`] | a batch as a transaction, redeliveries, history, the owner's memory, and the rival |
//! | [`participant`] | the barrier, effects, saved replies, calls to the outside, the floor |
//! | `events`, `happen` | what can happen, and what it makes of the world |
//! | [`properties`] | the promises, by name |
//! | [`rest`] | from every state every way without further trouble: does it end? |
//! | [`scenarios`] | what is explored, and the table of knock-outs |
//!
//! # What is in
//!
//! Transactions over batches of inputs and of commands; a crash between commit, sending and offsets, where what was
//! sent has arrived, arrives later, or never; answers of commits and of sending that are lost; duplicates of any
//! record at any later time; an owner that has lost the partition and commits late; handlers that fail and err, on
//! actions and on compensations; calls to the outside with their intents, commands that wait for them, and sweeps;
//! timers at any time, with what the owner knows of where a command stands, also after a takeover; the deadline;
//! people who cancel, retry, complete, skip and abandon; lifecycle events by number; retention with its floors.
//!
//! # What is out, and why
//!
//! - Payloads, causes, results: nothing decides by them.
//! - Clocks: a timer that is armed may fall due at any time, which is more than any clock allows. So the two looks
//!   after a command (seen picked up, then overdue) are one, and the verdict `queued`, which only changes what a
//!   person is told, is none.
//! - Several sagas: sagas share nothing but the floor, which is a fact of its own here.
//! - What an owner knows from memory: a rival may read at any time and commit at any later one, held back by the version
//!   alone, which is all that holds it back in the product.
//! - Two members of a participant's group at once: the second one's insert finds the first one's row and runs again,
//!   which is a duplicate.
//! - Compensations that call the outside: the same intents, in the other direction.
//! - Records that are lost from a log by retention, and offsets that cannot be read.
//! - `timer.due` bears its kind in the product because it once had to; since an attempt's number rises when it is sent,
//!   and not when its delay begins, no state needs it.
//!
//! # Coming to rest
//!
//! `always` looks at one state. That a saga is not stuck is about what follows, so [`rest`] follows every way that
//! needs no further trouble, from every reachable state, and remembers what it knows. This is more than that *some*
//! way leads to an end: none leads anywhere else, however the next steps fall.
//!
//! # Running it
//!
//! `cargo run --release -p saga-model` walks through all of it in a few minutes and prints a line for each scenario
//! and each rule; `--only NAME --show` prints the way to what is broken. The tests walk through the smaller scenarios
//! and the whole table of knock-outs.

pub mod definition;
mod events;
pub mod explore;
mod happen;
pub mod message;
pub mod orchestrator;
pub mod participant;
pub mod properties;
pub mod rest;
pub mod rules;
pub mod saga;
pub mod scenarios;
pub mod world;
