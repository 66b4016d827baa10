//! One account that logs in from two far-apart networks within minutes: a stolen key or password, or a person who moved.

use std::{collections::BTreeMap, net::IpAddr};

use logwarden_templates::{Delta, SlotKind};

use crate::{
    By, Category, Entity, EntityKind, Finding, ProfileName, Route, Severity, address,
    claim::{Cited, Entities},
    look::{Hit, values},
    rule::Act,
    rules::RuleSet,
};

/// Two logins within so many minutes are from one person at one place.
const MINUTES: i64 = 10;

/// What it means.
const WHY: &str = "One account came in from networks that have nothing to do with each other. A person with a telephone and \
                   a computer does that, and so does somebody with a stolen password or key.";

/// Accounts that automation uses from wherever it runs.
const MACHINES: &[&str] =
    &["git", "deploy", "ci", "jenkins", "gitlab-runner", "github", "runner", "ansible", "backup", "rsync", "borg"];

/// Logins of one account on one host.
#[derive(Default)]
struct Logins {
    rows: Vec<u32>,
    entities: Entities,
    /// Minute and network of each.
    seen: Vec<(i64, IpAddr)>,
}

/// Accounts that were at two places at once, as far as one delta tells.
pub(crate) fn look(delta: &Delta, rules: &RuleSet, hits: &[Hit]) -> Vec<Finding> {
    let mut accounts: BTreeMap<(String, String), Logins> = BTreeMap::new();
    for hit in hits.iter().filter(|hit| matches!(rules.rule(hit.rule).act, Act::Success(_))) {
        let row = &delta.rows[hit.row];
        let (users, addresses) = (values(row, hit, "user", SlotKind::User), values(row, hit, "ip", SlotKind::Ip));
        for address in addresses {
            let Some(network) = address::network(&address.value) else { continue };
            // Whose login it was is known when the row has one user, or from the lines themselves.
            let pair = hit.captures.iter().find(|captures| captures.get("ip") == Some(&address.value));
            let user = match &users[..] {
                [only] => Some(only.value.as_str()),
                _ => pair.and_then(|captures| captures.get("user")),
            };
            let Some(user) = user.filter(|user| !MACHINES.contains(user)) else { continue };
            let logins = accounts.entry((row.origin.host.to_string(), user.to_owned())).or_default();
            logins.rows.extend(u32::try_from(hit.row));
            logins.seen.extend(address.minutes.iter().map(|(minute, _)| (minute, network)));
            logins.entities.add(EntityKind::Ip, &address.value, address.count);
        }
    }
    accounts.into_iter().filter_map(|((_, user), logins)| finding(delta, &user, logins)).collect()
}

fn finding(delta: &Delta, user: &str, mut logins: Logins) -> Option<Finding> {
    logins.seen.sort_unstable();
    let apart = |pair: &[(i64, IpAddr)]| matches!(pair, [a, b] if a.1 != b.1 && b.0 - a.0 <= MINUTES);
    logins.seen.windows(2).any(apart).then_some(())?;
    logins.rows.sort_unstable();
    logins.rows.dedup();
    let mut entities = logins.entities.ranked();
    entities.push(Entity { kind: EntityKind::User, value: user.into(), count: logins.seen.len() as u64 });
    let cited = Cited::new(logins.rows);
    let mut explanation = WHY.to_owned();
    cited.explain(&mut explanation, &mut entities);
    let of_rows = || cited.rows.iter().filter_map(|row| delta.rows.get(*row as usize));
    Some(Finding {
        by: By::Rule { id: "login-two-places".to_owned() },
        profile: ProfileName::security(),
        category: Category::UnusualLogin,
        severity: Severity::Low,
        floor: Some(Severity::Low),
        route: Route::Alert,
        title: format!("{user} logged in from two far-apart networks within minutes"),
        explanation,
        recommendation: "Ask that person whether both addresses are theirs: `last -a | head -n 20`.".to_owned(),
        absent: cited.subject(delta, "places", user, ""),
        count: logins.seen.len() as u64,
        first: of_rows().map(|row| row.first).min()?,
        last: of_rows().map(|row| row.last).max()?,
        anomalous: cited.anomalous,
        rows: cited.rows,
        discriminator: user.to_owned(),
        entities,
        score: 3.0,
    })
}
