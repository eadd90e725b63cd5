//! A row of figures, as both kernels print it: `row|PROBE|ON|PLACED|OTHERS|CALLS|PLAIN|PROBED`.

use serde_json::{Value, json};

/// What calls of one kind of function cost that one kind of probe is on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The handlers, and what is special: `pre + post`, `2 probes, pre`, `entry + return`.
    pub(crate) probe: String,
    /// The probed instruction, by the name of its function: `lea`, `jmp`.
    pub(crate) on: String,
    /// How the probe is placed: `int3`, `jump` or `ftrace` of Linux; with us, how the instruction takes its effect.
    pub(crate) placed: String,
    /// How many other addresses were probed.
    pub(crate) others: u64,
    /// How many calls the next two are for.
    calls: u64,
    /// Instructions of the calls when nothing was probed.
    plain: u64,
    /// Instructions of the calls when the functions were probed.
    probed: u64,
}

impl Row {
    /// Instructions of one call that is not probed, those of the loop around it included.
    pub(crate) fn call(&self) -> f64 {
        per_call(self.plain, self.calls)
    }

    /// Instructions that the probe adds to a call.
    pub(crate) fn cost(&self) -> f64 {
        per_call(self.probed - self.plain, self.calls)
    }

    /// The row of these fields, without `row`; none if they cannot be one.
    pub(crate) fn parse(fields: &[&str]) -> Option<Self> {
        let [probe, on, placed, others, calls, plain, probed] = fields else { return None };
        let row = Self {
            probe: (*probe).to_owned(),
            on: (*on).to_owned(),
            placed: (*placed).to_owned(),
            others: others.parse().ok()?,
            calls: calls.parse().ok()?,
            plain: plain.parse().ok()?,
            probed: probed.parse().ok()?,
        };
        (row.calls > 0 && row.probed > row.plain).then_some(row)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "probe": self.probe, "on": self.on, "placed": self.placed, "others": self.others, "call": self.call(),
            "cost": self.cost(), "calls": self.calls, "plain": self.plain, "probed": self.probed,
        })
    }
}

/// Exact for all counts below 2^53; a run executes about 2^35 instructions.
fn per_call(instructions: u64, calls: u64) -> f64 {
    instructions as f64 / calls as f64
}
