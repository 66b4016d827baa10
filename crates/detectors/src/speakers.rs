//! Who may claim a finding, how bad at worst, and through whom those speak who claim none themselves.

use crate::{
    By, Severity,
    finding::Finding,
    rule::{Act, Class},
    rules::RuleSet,
};

/// What claims findings besides rules and classes, and how bad they are at worst.
const DETECTORS: [(&str, Severity); 8] = [
    ("beacon", Severity::Medium),
    ("errors", Severity::Low),
    ("level-mix", Severity::Medium),
    ("new-value", Severity::Medium),
    ("novel", Severity::High),
    ("silence", Severity::Medium),
    ("source-silence", Severity::High),
    ("surge", Severity::Medium),
];

/// Claims logins from two places at once.
const TWO_PLACES: &str = "login-two-places";

impl RuleSet {
    /// Everybody who may claim a finding, with the worst severity that it may have; some perhaps twice.
    pub fn speakers(&self) -> impl Iterator<Item = (By, Severity)> {
        let rule = |id: &str, worst: Severity| (By::Rule { id: id.to_owned() }, worst);
        let of_rules = self.rules().filter_map(move |one| match &one.act {
            Act::Find(_) => {
                let raised = one.raise.iter().map(|raise| raise.severity).max();
                Some(rule(&one.id, raised.map_or(one.severity, |raised| raised.max(one.severity))))
            }
            Act::Count(class) => self.class(class).map(|class| rule(&class.id, class.worst())),
            Act::Success(class) => Some(rule(&after(class), Severity::Critical)),
            Act::Watch | Act::Contact | Act::Benign => None,
        });
        let of_detectors = DETECTORS.iter().map(|(name, worst)| (By::Detector { name: (*name).to_owned() }, *worst));
        of_rules.chain([rule(TWO_PLACES, Severity::Low)]).chain(of_detectors)
    }

    /// Who claims what a rule that claims nothing itself has noticed: `ssh-login` for `ssh-failed-password`. Nobody, when
    /// the rule says what is normal. `None` when it speaks for itself, or is not there.
    pub fn speaks_through(&self, id: &str) -> Option<Option<String>> {
        match &self.rules().find(|rule| rule.id == id)?.act {
            Act::Find(_) => None,
            Act::Count(class) => Some(Some(class.clone())),
            Act::Success(class) => Some(Some(after(class))),
            Act::Watch => Some(Some("new-value".to_owned())),
            Act::Contact => Some(Some("beacon".to_owned())),
            Act::Benign => Some(None),
        }
    }

    /// Whether whoever claims a finding is known to do so, and never worse.
    pub(crate) fn knows_speaker_of(&self, finding: &Finding) -> bool {
        self.speakers().any(|(by, worst)| by == finding.by && finding.severity <= worst)
    }
}

impl Class {
    fn worst(&self) -> Severity {
        let many = match self.severity {
            Severity::Low if self.many.is_some() => Severity::Medium,
            Severity::Medium if self.many.is_some() => Severity::High,
            severity => severity,
        };
        self.inside.map_or(many, |inside| inside.max(many))
    }
}

/// Claims successes after failures of a class.
fn after(class: &str) -> String {
    format!("{class}-success")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(name: &str) -> Option<Severity> {
        let is = |by: &By| matches!(by, By::Rule { id: known } | By::Detector { name: known } if known == name);
        RuleSet::builtin().speakers().filter(|(by, _)| is(by)).map(|(_, worst)| worst).max()
    }

    #[test]
    fn whoever_claims_findings_is_known_with_the_worst_of_them() {
        for (name, wanted) in [
            ("oom-kill", Some(Severity::Critical)),
            ("ids-alert", Some(Severity::High)), // only where its condition raises it
            ("ssh-login", Some(Severity::High)),
            ("ssh-login-success", Some(Severity::Critical)),
            ("source-silence", Some(Severity::High)),
            ("surge", Some(Severity::Medium)),
            ("login-two-places", Some(Severity::Low)),
            ("ssh-failed-password", None),
            ("shipper-healthy", None),
            ("no-such-rule", None),
        ] {
            assert_eq!(worst(name), wanted, "{name}");
        }
    }

    #[test]
    fn a_rule_that_feeds_others_names_them() {
        let rules = RuleSet::builtin();
        assert_eq!(rules.speaks_through("ssh-failed-password"), Some(Some("ssh-login".to_owned())));
        assert_eq!(rules.speaks_through("shipper-healthy"), Some(None));
        assert_eq!(rules.speaks_through("oom-kill"), None);
        assert_eq!(rules.speaks_through("no-such-rule"), None);
        // Whoever speaks for another must be somebody whom a mute finds.
        for through in rules.rules().filter_map(|rule| rules.speaks_through(&rule.id).flatten()) {
            assert!(worst(&through).is_some(), "{through}");
        }
    }
}
