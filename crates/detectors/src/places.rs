//! One account that logs in from two far-apart networks within minutes: a stolen key or password, or a person who moved.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use logwarden_templates::{Delta, SlotKind, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    By, Category, Entity, EntityKind, Finding, ProfileName, Route, Severity, address,
    claim::{Cited, Entities},
    failures::key,
    look::{Hit, values},
    rule::Act,
    rules::RuleSet,
};

/// Two logins within so many minutes are from one person at one place.
const MINUTES: i64 = 10;

/// Networks that are named.
const NETWORKS: usize = 4;

/// What it means.
const WHY: &str = "One account came in from networks that have nothing to do with each other. A person with a telephone and \
                   a computer does that, and so does somebody with a stolen password or key.";

/// Accounts that automation uses from wherever it runs.
const MACHINES: &[&str] =
    &["git", "deploy", "ci", "jenkins", "gitlab-runner", "github", "runner", "ansible", "backup", "rsync", "borg"];

/// Logins that are remembered.
const MOST: usize = 512;

/// From where accounts have logged in within the last minutes. Opaque: [`detect`](crate::detect) reads and grows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Places(pub(crate) Vec<Place>);

/// One login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Hash of host and user.
    pub(crate) account: u64,
    /// Since 1970.
    pub(crate) minute: i64,
    network: IpAddr,
}

impl Place {
    pub(crate) fn octets(&self) -> [u8; 16] {
        match self.network {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        }
    }

    pub(crate) fn of_octets(account: u64, minute: i64, octets: [u8; 16]) -> Self {
        Self { account, minute, network: IpAddr::V6(Ipv6Addr::from(octets)).to_canonical() }
    }
}

/// Logins of one account on one host.
#[derive(Default)]
struct Logins {
    rows: Vec<u32>,
    entities: Entities,
    /// Minute and network of each.
    seen: Vec<(i64, IpAddr)>,
}

/// Accounts that were at two places at once; and from where logins were remembered, with those that came now.
pub(crate) fn look(
    delta: &Delta,
    rules: &RuleSet,
    hits: &[Hit],
    known: &Places,
    now: Timestamp,
) -> (Vec<Finding>, Places) {
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
    let mut places = known.clone();
    let mut findings = Vec::new();
    for ((host, user), mut logins) in accounts {
        let account = key(&["place", &host, &user]);
        let new = logins.seen.iter().map(|(minute, network)| Place { account, minute: *minute, network: *network });
        places.0.extend(new);
        let near = |place: &&Place| logins.seen.iter().any(|(minute, _)| (minute - place.minute).abs() <= MINUTES);
        let before = known.0.iter().filter(|place| place.account == account).filter(near);
        let before: Vec<_> = before.map(|place| (place.minute, place.network)).collect();
        logins.seen.extend(before);
        findings.extend(finding(delta, &user, logins));
    }
    (findings, places.recent(now.minute()))
}

impl Places {
    /// Those that still matter, each once; of too many the latest. Nobody has logged in later than `now`.
    fn recent(mut self, now: i64) -> Self {
        self.0.iter_mut().for_each(|place| place.minute = place.minute.min(now));
        let latest = self.0.iter().map(|place| place.minute).max().unwrap_or_default();
        self.0.retain(|place| place.minute >= latest - MINUTES);
        self.0.sort_unstable_by_key(|place| (std::cmp::Reverse(place.minute), *place));
        self.0.dedup();
        self.0.truncate(MOST);
        self
    }
}

fn finding(delta: &Delta, user: &str, mut logins: Logins) -> Option<Finding> {
    logins.seen.sort_unstable();
    let apart = |pair: &[(i64, IpAddr)]| matches!(pair, [a, b] if a.1 != b.1 && b.0 - a.0 <= MINUTES);
    logins.seen.windows(2).any(apart).then_some(())?;
    let networks: BTreeSet<IpAddr> = logins.seen.iter().map(|(_, network)| *network).collect();
    logins.rows.sort_unstable();
    logins.rows.dedup();
    let mut entities = logins.entities.ranked();
    entities.push(Entity { kind: EntityKind::User, value: user.into(), count: logins.seen.len() as u64 });
    let cited = Cited::new(logins.rows);
    let networks: Vec<String> = networks.iter().take(NETWORKS).map(IpAddr::to_string).collect();
    let mut explanation = format!("{WHY} The networks begin with {}.", networks.join(" and "));
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
