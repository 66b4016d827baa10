//! What an error of Loki means for the reader: never, smaller, or later.
//!
//! Loki answers errors as plain text, uses 500 for a wrong tenant setting and 400 for limits that a client can adapt to
//! (texts of Loki 3.8), and gives no answer at all to a page over 4 MiB.

use logwarden_core::source::SourceError;

/// A request that brought nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) error: SourceError,
}

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, for this query.
    Query,
    /// Nothing, for any query.
    Source,
    /// The same, later, for any query: the server cannot be reached or is in trouble.
    Later,
    /// The same, later, and less at once.
    Busy,
    /// A smaller page.
    Smaller,
    /// A page of at most so many lines.
    Limit(usize),
    /// A shorter window.
    Narrower,
}

/// Classifies an answer with an error status.
pub(crate) fn refused(origin: &str, tenant: &str, status: u16, excerpt: String) -> Failure {
    let text = excerpt.as_str();
    let refused = |kind, hint: Option<&str>, excerpt: String| Failure {
        kind,
        error: SourceError::Refused { origin: origin.into(), status, excerpt, hint: hint.map(Into::into) },
    };
    let (kind, hint) = match status {
        500 if text.contains("multiple org IDs present") => {
            let hint = "name one tenant, or set `multi_tenant_queries_enabled: true` in Loki's `querier` section";
            let error = SourceError::Unusable {
                subject: format!("the list of tenants `{tenant}`"),
                reason: format!("Loki at {origin} allows one tenant per request"),
                hint: Some(hint.into()),
            };
            return Failure { kind: Kind::Source, error };
        }
        400 if text.starts_with("max entries limit per query exceeded") => match last_number(text) {
            Some(max) if max > 0 => (Kind::Limit(max), None),
            _ => (Kind::Smaller, None),
        },
        400 if text.starts_with("the query time range exceeds")
            || text.starts_with("the query would read too many") =>
        {
            (Kind::Narrower, Some("make the query's selector more specific, or raise the limit in Loki"))
        }
        400 if text.starts_with("exceeded maximum resolution") => (Kind::Narrower, None),
        400 if text.starts_with("end timestamp must not be before") => {
            (Kind::Later, Some("compare this machine's clock with that of the Loki server"))
        }
        400 if text.starts_with("tenant ID") => {
            (Kind::Source, Some("a tenant has only letters, digits and `!-_.*'()`, up to 150 of them"))
        }
        400 if text.starts_with("parse error") => {
            (Kind::Query, Some("correct the query; Grafana's Explore shows where LogQL is wrong"))
        }
        400 if text.starts_with("stream selector is missing required matchers") => {
            (Kind::Query, Some("add the labels that this Loki demands to the query's selector"))
        }
        400 if text.starts_with("query blocked by policy") => {
            (Kind::Query, Some("the operator of this Loki has blocked the query; ask them or change it"))
        }
        401 if text.contains("no org id") => (
            Kind::Source,
            Some("this Loki wants a tenant, the `X-Scope-OrgID` header: set loki.tenant, or LOKI_TENANT"),
        ),
        401 | 403 | 407 => {
            (Kind::Source, Some("check user, password or token, and whether they may read logs of this tenant"))
        }
        404 => (
            Kind::Source,
            Some("check the URL: the part before `/loki/api/v1` (a gateway or Grafana adds one) belongs to it"),
        ),
        300..=399 => (
            Kind::Source,
            Some("redirects are not followed, since they would carry credentials elsewhere; use the final URL"),
        ),
        408 | 504 => (Kind::Smaller, None),
        413 => (Kind::Smaller, None),
        429 => (Kind::Busy, Some("Loki is overloaded; fewer or narrower queries help, or a higher limit in Loki")),
        500 if text.contains("larger than max") || text.contains("ResourceExhausted") => (Kind::Smaller, None),
        499..=599 => (Kind::Later, None),
        _ => (Kind::Query, None),
    };
    refused(kind, hint, excerpt)
}

/// The last number of a text: `… (5001 > 5000)` says 5000.
fn last_number(text: &str) -> Option<usize> {
    let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = text[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |i| i + 1);
    text[start..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_status_and_text() {
        let cases = [
            (400, "parse error at line 1, col 13: syntax error: unexpected $end, expecting } or ,", Kind::Query),
            (400, "parse error : queries require at least one regexp or equality matcher", Kind::Query),
            (
                400,
                "max entries limit per query exceeded, limit > max_entries_limit_per_query (5001 > 5000)",
                Kind::Limit(5000),
            ),
            (400, "the query time range exceeds the limit (query length: 744h0m0s, limit: 30d1h)", Kind::Narrower),
            (400, "the query would read too many bytes (query: 323 KiB, limit: 1.0 KiB); consider", Kind::Narrower),
            (400, "exceeded maximum resolution of 11,000 points per time series.", Kind::Narrower),
            (400, "end timestamp must not be before or equal to start time", Kind::Later),
            (400, "tenant ID 'bad tenant/../x' contains unsupported character ' '", Kind::Source),
            (
                400,
                "stream selector is missing required matchers [app], labels present in the query were [job]",
                Kind::Query,
            ),
            (400, "query blocked by policy", Kind::Query),
            (401, "no org id", Kind::Source),
            (404, "404 page not found", Kind::Source),
            (429, "too many outstanding requests", Kind::Busy),
            (500, "multiple org IDs present", Kind::Source),
            (
                500,
                "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5 vs. 4)",
                Kind::Smaller,
            ),
            (500, "rpc error: code = Unavailable", Kind::Later),
            (502, "", Kind::Later),
            (503, "Ingester not ready: waiting for 15s after being ready", Kind::Later),
            (504, "request timed out, decrease the duration of the request", Kind::Smaller),
            (302, "", Kind::Source),
        ];
        for (status, text, kind) in cases {
            assert_eq!(refused("http://loki:3100", "t", status, text.into()).kind, kind, "{status} {text}");
        }
        let permanent = refused("http://loki:3100", "a|b", 500, "multiple org IDs present".into());
        assert!(!permanent.error.is_transient());
    }
}
