//! What `doctor` asks a Loki: is it there, is it ready, is it the right tenant, do the queries work.

use logwarden_core::{
    Timestamp,
    error::chain,
    source::{LogSource as _, QueryInfo, SourceError},
};

use crate::{
    Loki,
    answer::{Answer, Listing},
    failure::{Failure, Kind},
    logql,
};

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// As it should be.
    Good,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work.
    Bad,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// How it stands.
    pub standing: Standing,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

const HOUR: i64 = 3_600_000_000_000;

#[derive(serde::Deserialize)]
struct Build {
    version: String,
}

impl Loki {
    /// What should be changed in the queries, in sentences for people; without asking Loki.
    pub fn remarks(&self) -> Vec<String> {
        let of_query = |query: &QueryInfo| {
            let stages = logql::rewriting(&query.text).join("` and `");
            (!stages.is_empty()).then(|| {
                format!(
                    "the query `{}` changes lines or labels inside Loki, by `{stages}`: different lines can become the same \
                     one there; leave that out, it is done here",
                    query.text
                )
            })
        };
        self.queries().iter().filter_map(of_query).collect()
    }

    /// Asks for readiness, version, labels of the tenant, and every query's syntax and one line of the last hour.
    pub async fn check(&self, now: Timestamp) -> Vec<Check> {
        let mut checks = Vec::new();
        let origin = self.http.base();
        match self.http.text("ready", &[]).await {
            Ok(_) => checks.push(good(format!("Loki at {origin} is ready"))),
            Err(Failure { error: SourceError::Refused { status: 404, .. }, .. }) => {
                checks.push(good(format!("{origin} has no `/ready`, as usual behind a gateway")));
            }
            Err(Failure { error: SourceError::Refused { status: 503, excerpt, .. }, .. }) => checks.push(warning(
                format!("Loki at {origin} is not ready: {excerpt}"),
                "it is starting; try again in a minute, and look at its log if it stays so",
            )),
            Err(failure) => {
                let down = matches!(failure.error, SourceError::Unreachable { .. });
                checks.push(bad(&failure.error));
                if down {
                    return checks;
                }
            }
        }
        if let Ok(build) = self.http.json::<Build>("loki/api/v1/status/buildinfo", &[]).await {
            let version: String = build.value.version.chars().filter(|c| !c.is_control()).take(40).collect();
            checks.push(good(format!("it is Loki {version}")));
        }
        let (start, end) = ((now.nanos() - 6 * HOUR).to_string(), now.nanos().to_string());
        let range = [("start", start.as_str()), ("end", end.as_str())];
        match self.http.json::<Listing<Vec<String>>>("loki/api/v1/labels", &range).await {
            Ok(listing) => checks.push(self.labels(listing.value.data.unwrap_or_default())),
            Err(failure) => {
                checks.push(bad(&failure.error));
                if failure.kind == Kind::Source {
                    return checks;
                }
            }
        }
        for query in self.queries() {
            checks.extend(self.check_query(&query.text, now).await);
        }
        checks
    }

    fn labels(&self, mut names: Vec<String>) -> Check {
        let tenant = match self.http.tenants() {
            "" => "without a tenant".to_owned(),
            tenants => format!("for the tenant `{tenants}`"),
        };
        if names.is_empty() {
            return warning(
                format!("Loki has no labels {tenant} in the last six hours: no log line came in"),
                "check the tenant's spelling (a wrong one is no error in Loki), and whether the shipper sends to this Loki",
            );
        }
        let more = names.len().saturating_sub(12);
        names.truncate(12);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        good(format!("labels {tenant}: {}{rest}", names.join(", ")))
    }

    async fn check_query(&self, query: &str, now: Timestamp) -> Vec<Check> {
        let mut checks = Vec::new();
        let params = [("query", query)];
        // Old releases and gateways have no such endpoint; then the test query decides.
        let formatted = self.http.text("loki/api/v1/format_query", &params).await;
        if let Err(Failure { error: SourceError::Refused { status: 400, excerpt, .. }, .. }) = formatted {
            let said: Option<Said> = serde_json::from_str(&excerpt).ok();
            let text = format!("the query `{query}`: {}", said.map_or(excerpt, |said| said.error));
            let hint = "correct the query; Grafana's Explore shows where LogQL is wrong";
            checks.push(Check { standing: Standing::Bad, text, hint: Some(hint.into()) });
            return checks;
        }
        let (start, end) = ((now.nanos() - HOUR).to_string(), now.nanos().to_string());
        let params =
            [("query", query), ("start", start.as_str()), ("end", &end), ("limit", "1"), ("direction", "backward")];
        match self.http.json::<Answer>("loki/api/v1/query_range", &params).await {
            Err(failure) => {
                let mut check = bad(&failure.error);
                check.text = format!("the query `{query}`: {}", check.text);
                checks.push(check);
            }
            Ok(answer) if answer.value.data.result_type != "streams" => checks.push(Check {
                standing: Standing::Bad,
                text: format!("the query `{query}` has a `{}` for an answer, no lines", answer.value.data.result_type),
                hint: Some("use a log query; numbers belong to Prometheus".into()),
            }),
            Ok(answer) if answer.value.data.result.iter().flatten().all(|series| series.values.is_empty()) => {
                checks.push(warning(
                    format!("the query `{query}` matches no line of the last hour"),
                    "a quiet system, or a label that is spelt otherwise: compare with the labels above",
                ));
            }
            Ok(_) => checks.push(good(format!("the query `{query}` matches lines of the last hour"))),
        }
        checks
    }
}

#[derive(serde::Deserialize)]
struct Said {
    error: String,
}

fn good(text: String) -> Check {
    Check { standing: Standing::Good, text, hint: None }
}

fn warning(text: String, hint: &str) -> Check {
    Check { standing: Standing::Warning, text, hint: Some(hint.into()) }
}

fn bad(error: &SourceError) -> Check {
    let text = chain(error);
    let hint = match error {
        SourceError::Unreachable { .. } if text.contains("UnknownIssuer") => {
            Some("its certificate is of a private authority: name that authority's certificate")
        }
        SourceError::Unreachable { .. } => Some(
            "is Loki running there, and may this machine reach it? `curl URL/ready` asks the same; the URL is Loki's, \
             not Grafana's",
        ),
        _ => error.hint(),
    };
    Check { standing: Standing::Bad, hint: hint.map(Into::into), text }
}
