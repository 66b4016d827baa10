//! The day's budget of alerts: a source that alarms all day for nothing must not make people look away.
//!
//! Critical and high never count and are never held back. What exceeds the budget is listed, counted, and named in the
//! day's summary.

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    decide::Policy,
    ledger::{Snapshot, Versioned, Write},
    source::SourceId,
};

/// The counter of incidents that were only listed for want of budget.
pub const OVER: &str = "incidents_over_budget";

/// What a source has spent today.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    /// Days since 1970.
    day: i64,
    alerts: u32,
}

/// What a source may still spend today.
#[derive(Debug)]
pub struct Budget {
    name: String,
    version: u64,
    spent: Spent,
    most: u32,
    /// Refused in this decision.
    over: u64,
    changed: bool,
}

/// The name of the value that must be read for [`Budget::of`].
pub fn name(source: &SourceId) -> String {
    format!("budget.{source}")
}

impl Budget {
    /// The budget of `source` at `now`; `snapshot` has the value called [`name`].
    pub fn of(policy: &Policy, snapshot: &Snapshot, source: &SourceId, now: Timestamp) -> Self {
        let name = name(source);
        let known = snapshot.values.get(&name);
        let spent = known.and_then(|value| serde_json::from_value::<Spent>(value.row.clone()).ok()).unwrap_or_default();
        let day = now.secs().div_euclid(86_400);
        let spent = if spent.day == day { spent } else { Spent { day, alerts: 0 } };
        let version = known.map_or(0, |value| value.version);
        Self { name, version, spent, most: policy.alerts_per_day, over: 0, changed: false }
    }

    /// Takes one alert; `false` when there is none left.
    pub fn take(&mut self) -> bool {
        if self.spent.alerts >= self.most {
            return false;
        }
        self.spent.alerts += 1;
        self.changed = true;
        true
    }

    /// Counts an incident that is only listed.
    pub fn refuse(&mut self) {
        self.over += 1;
    }

    /// What has changed.
    pub fn close(self) -> Vec<Write> {
        let mut writes = Vec::new();
        if self.changed
            && let Ok(row) = serde_json::to_value(self.spent)
        {
            writes.push(Write::Value(self.name, Versioned { version: self.version, row }));
        }
        if self.over > 0 {
            writes.push(Write::Count(OVER.to_owned(), self.over));
        }
        writes
    }
}
