//! The definitions of the model: three shapes, each small enough to be walked through completely.

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Compensatable,
    Pivot,
    Retriable,
}

/// A step. Every step has a participant of its own, which allows more orders of events than two steps that share one.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub name: &'static str,
    pub kind: Kind,
    /// The steps that must be done before this one.
    pub after: &'static [usize],
    /// True if the step is done before the saga begins, so that it only has a compensation.
    pub by_starter: bool,
    /// True if the broker does not accept the action's payload, until a person's retry gives another payload.
    pub is_too_large: bool,
}

impl Step {
    const fn new(name: &'static str, kind: Kind, after: &'static [usize]) -> Self {
        Self {
            name,
            kind,
            after,
            by_starter: false,
            is_too_large: false,
        }
    }
}

/// A saga definition.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    pub name: &'static str,
    pub steps: &'static [Step],
}

const CREATE: Step = Step {
    by_starter: true,
    ..Step::new("create", Kind::Compensatable, &[])
};

/// The order: create ─▶ reserve ─▶ charge (pivot) ─▶ confirm
pub const ORDER: Definition = Definition {
    name: "order",
    steps: &[
        CREATE,
        Step::new("reserve", Kind::Compensatable, &[0]),
        Step::new("charge", Kind::Pivot, &[1]),
        Step::new("confirm", Kind::Retriable, &[2]),
    ],
};

/// Parallel steps: create ─▶ reserve ∥ ticket ─▶ charge (pivot)
pub const PARALLEL: Definition = Definition {
    name: "parallel",
    steps: &[
        CREATE,
        Step::new("reserve", Kind::Compensatable, &[0]),
        Step::new("ticket", Kind::Compensatable, &[0]),
        Step::new("charge", Kind::Pivot, &[1, 2]),
    ],
};

/// The order, with actions that are too large to be sent: create ─▶ reserve ─▶ charge (pivot)
pub const TOO_LARGE: Definition = Definition {
    name: "too large",
    steps: &[
        CREATE,
        Step {
            is_too_large: true,
            ..Step::new("reserve", Kind::Compensatable, &[0])
        },
        Step {
            is_too_large: true,
            ..Step::new("charge", Kind::Pivot, &[1])
        },
    ],
};

/// No pivot: create ─▶ reserve ─▶ ticket
pub const NO_PIVOT: Definition = Definition {
    name: "no pivot",
    steps: &[
        CREATE,
        Step::new("reserve", Kind::Compensatable, &[0]),
        Step::new("ticket", Kind::Compensatable, &[1]),
    ],
};

impl Definition {
    pub fn pivot(&self) -> Option<usize> {
        self.steps.iter().position(|step| step.kind == Kind::Pivot)
    }

    /// Returns true if `later` cannot begin before `earlier` is done.
    pub fn is_ancestor(&self, earlier: usize, later: usize) -> bool {
        self.steps[later]
            .after
            .iter()
            .any(|before| *before == earlier || self.is_ancestor(earlier, *before))
    }
}
