//! The report of an audit, for people and for programs.

use crate::{finding::Finding, journal::Journal, look::Look, store::orders::Order};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Findings that were confirmed by two looks. If empty, the system is consistent.
    pub discrepancies: Vec<Finding>,
    /// Sagas that wait for a person. They are no discrepancy if they give a reason.
    pub parked: Vec<Parked>,
    /// The number of looks.
    pub looks: u32,
    pub figures: Figures,
}

/// A saga that needs a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parked {
    pub saga: Uuid,
    pub reason: String,
}

/// The action that a person has to take about a parked saga.
const PARKED_WAY_OUT: &str = "way out: see what it did (sagactl saga show ID), then sagactl saga retry, complete, skip or abandon it";

/// Figures of the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Number of orders that the client's journal has as acknowledged.
    pub accepted: usize,
    /// Number of orders by status.
    pub orders: BTreeMap<String, usize>,
    /// Number of cancelled orders by reason code.
    pub reasons: BTreeMap<String, usize>,
    /// Number of sagas by status.
    pub sagas: BTreeMap<String, usize>,
    /// Amounts by currency.
    pub money: BTreeMap<String, Amounts>,
    pub pieces_available: i64,
    pub pieces_reserved: i64,
    pub pieces_sold: i64,
    /// Number of records by topic.
    pub records: BTreeMap<String, u64>,
    pub unreadable: BTreeMap<String, u64>,
    /// Number of dead letters by topic and reason.
    pub dead_letters: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Amounts in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    pub charged: i64,
    pub refunded: i64,
    /// Sum of the totals of confirmed orders.
    pub confirmed: i64,
}

impl Report {
    pub(crate) fn new(
        looks: u32,
        look: &Look,
        journal: &Journal,
        discrepancies: Vec<Finding>,
    ) -> Self {
        Self {
            discrepancies,
            parked: parked(look),
            looks,
            figures: figures(look, journal),
        }
    }

    pub fn is_clean(&self) -> bool {
        self.discrepancies.is_empty()
    }
}

fn parked(look: &Look) -> Vec<Parked> {
    let sagas = look.sagas.by_id.iter();
    let parked = sagas.filter(|(_, saga)| saga.status == "parked");
    parked
        .map(|(id, saga)| Parked {
            saga: *id,
            reason: saga.reason.clone().unwrap_or_default(),
        })
        .collect()
}

fn figures(look: &Look, journal: &Journal) -> Figures {
    let mut figures = Figures {
        accepted: journal.accepted.len(),
        records: look.topics.records.clone(),
        unreadable: look.topics.unreadable.clone(),
        dead_letters: look.topics.dead_letters.clone(),
        ..Figures::default()
    };
    for order in look.orders.by_id.values() {
        count_order(&mut figures, order);
    }
    for saga in look.sagas.by_id.values() {
        *figures.sagas.entry(saga.status.clone()).or_default() += 1;
    }
    for product in look.stock.products.values() {
        figures.pieces_available += product.available;
        figures.pieces_reserved += product.reserved;
        figures.pieces_sold += product.sold;
    }
    for movement in look.payments.gateway.values().flatten() {
        let amounts = figures.money.entry(movement.currency.clone()).or_default();
        if movement.operation == "charge" {
            amounts.charged += movement.amount_minor;
        } else {
            amounts.refunded += movement.amount_minor;
        }
    }
    figures
}

fn count_order(figures: &mut Figures, order: &Order) {
    *figures.orders.entry(order.status.clone()).or_default() += 1;
    if let Some(reason) = &order.reason {
        *figures.reasons.entry(reason.clone()).or_default() += 1;
    }
    if order.status == "CONFIRMED" {
        let amounts = figures.money.entry(order.currency.clone()).or_default();
        amounts.confirmed += order.amount_minor;
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        writeln!(f, "orders    {}", counts(&figures.orders))?;
        if !figures.reasons.is_empty() {
            writeln!(f, "cancelled {}", counts(&figures.reasons))?;
        }
        writeln!(f, "sagas     {}", counts(&figures.sagas))?;
        writeln!(
            f,
            "stock     {} available, {} reserved, {} sold",
            figures.pieces_available, figures.pieces_reserved, figures.pieces_sold
        )?;
        for (currency, amounts) in &figures.money {
            writeln!(
                f,
                "money     {currency}, minor units: {} charged, {} refunded, {} confirmed",
                amounts.charged, amounts.refunded, amounts.confirmed
            )?;
        }
        writeln!(f, "records   {}", counts(&figures.records))?;
        for (topic, reasons) in &figures.dead_letters {
            writeln!(f, "dead      {topic}: {}", counts(reasons))?;
        }
        for parked in &self.parked {
            writeln!(
                f,
                "parked    {}: {}; {PARKED_WAY_OUT}",
                parked.saga, parked.reason
            )?;
        }
        for finding in &self.discrepancies {
            writeln!(f, "  ✗ {finding}")?;
        }
        match self.discrepancies.len() {
            0 => write!(f, "everything adds up (looks: {})", self.looks),
            1 => write!(f, "1 discrepancy (looks: {})", self.looks),
            many => write!(f, "{many} discrepancies (looks: {})", self.looks),
        }
    }
}

fn counts<N: Display>(counts: &BTreeMap<String, N>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    parts.join(", ")
}
