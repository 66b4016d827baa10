//! What a user reads when something is wrong.

use std::time::Duration;

use logwarden_core::{
    error::chain,
    source::{LogSource as _, SourceError},
};
use logwarden_loki_source::{Auth, Credential, Loki};
use logwarden_tests::loki::{FakeLoki, Fault};

use crate::{budget, builder, fake, queries};

const QUERY: &str = r#"{job="app"}"#;

fn shown(error: &SourceError, url: &str) -> String {
    let hint = error.hint().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
    format!("{}{hint}", chain(error)).replace(url, "LOKI")
}

/// The error of a read while every request fails in one way, and whether it is worth another try.
async fn failing(loki: &FakeLoki, fault: Fault) -> String {
    loki.faults(|faults| faults.always = vec![(String::new(), fault)]);
    let source = builder(&loki.url(), &[QUERY]).build().expect("a source");
    let error = source.read(None, &Default::default(), budget(100)).await.expect_err("an error");
    format!("{}\n{}", shown(&error, &loki.url()), if error.is_transient() { "(tries again)" } else { "(permanent)" })
}

#[tokio::test]
async fn statuses_and_texts() {
    let loki = fake().await;
    let cases = [
        (400, "parse error at line 1, col 13: syntax error: unexpected $end, expecting } or ,"),
        (
            400,
            "the query would read too many bytes (query: 323 KiB, limit: 1.0 KiB); consider adding more specific stream selectors or reduce the time range of the query",
        ),
        (400, "stream selector is missing required matchers [app], labels present in the query were [job]"),
        (400, "query blocked by policy"),
        (400, "tenant ID 'x y' contains unsupported character ' '"),
        (401, "no org id\n"),
        (401, "<html><head><title>401 Authorization Required</title></head></html>"),
        (404, "404 page not found\n"),
        (302, "<a href=\"/login\">Found</a>."),
        (429, "too many outstanding requests"),
        (500, "multiple org IDs present"),
        (500, "rpc error: code = Unavailable desc = connection error"),
        (502, "<html>\r\n<head><title>502 Bad Gateway</title></head>"),
        (503, "Ingester not ready: waiting for 15s after being ready\n"),
        (504, "request timed out, decrease the duration of the request"),
    ];
    let mut all = String::new();
    for (status, text) in cases {
        all += &failing(&loki, Fault::Status(status, text.into())).await;
        all += "\n\n";
    }
    insta::assert_snapshot!(all, @r#"
    the log source at LOKI refused the request (HTTP 400): parse error at line 1, col 13: syntax error: unexpected $end, expecting } or ,
    hint: correct the query; Grafana's Explore shows where LogQL is wrong
    (permanent)

    the log source at LOKI refused the request (HTTP 400): the query would read too many bytes (query: 323 KiB, limit: 1.0 KiB); consider adding more specific stream selectors or reduce the time range of the query
    hint: make the query's selector more specific, or raise the limit in Loki
    (permanent)

    the log source at LOKI refused the request (HTTP 400): stream selector is missing required matchers [app], labels present in the query were [job]
    hint: add the labels that this Loki demands to the query's selector
    (permanent)

    the log source at LOKI refused the request (HTTP 400): query blocked by policy
    hint: the operator of this Loki has blocked the query; ask them or change it
    (permanent)

    the log source at LOKI refused the request (HTTP 400): tenant ID 'x y' contains unsupported character ' '
    hint: a tenant has only letters, digits and `!-_.*'()`, up to 150 of them
    (permanent)

    the log source at LOKI refused the request (HTTP 401): no org id
    hint: this Loki wants a tenant, the `X-Scope-OrgID` header: set loki.tenant, or LOKI_TENANT
    (permanent)

    the log source at LOKI refused the request (HTTP 401): an HTML page, "401 Authorization Required"
    hint: check user, password or token, and whether they may read logs of this tenant
    (permanent)

    the log source at LOKI refused the request (HTTP 404): 404 page not found
    hint: check the URL: the part before `/loki/api/v1` (a gateway or Grafana adds one) belongs to it
    (permanent)

    the log source at LOKI refused the request (HTTP 302): <a href="/login">Found</a>.
    hint: redirects are not followed, since they would carry credentials elsewhere; use the final URL
    (permanent)

    the log source at LOKI refused the request (HTTP 429): too many outstanding requests
    hint: Loki is overloaded; fewer or narrower queries help, or a higher limit in Loki
    (tries again)

    the list of tenants `` cannot be used: Loki at LOKI allows one tenant per request
    hint: name one tenant, or set `multi_tenant_queries_enabled: true` in Loki's `querier` section
    (permanent)

    the log source at LOKI refused the request (HTTP 500): rpc error: code = Unavailable desc = connection error
    (tries again)

    the log source at LOKI refused the request (HTTP 502): an HTML page, "502 Bad Gateway"
    (tries again)

    the log source at LOKI refused the request (HTTP 503): Ingester not ready: waiting for 15s after being ready
    (tries again)

    the log source at LOKI refused the request (HTTP 504): request timed out, decrease the duration of the request
    (tries again)
    "#);
}

#[tokio::test]
async fn answers_that_are_none() {
    let loki = fake().await;
    insta::assert_snapshot!(failing(&loki, Fault::Garbage("<html><title>Sign in</title></html>".into())).await, @r#"
    the log source at LOKI answered with something that is not its protocol: an HTML page, "Sign in"; is there a login page or another service at this address?
    (tries again)
    "#);
    insta::assert_snapshot!(failing(&loki, Fault::Garbage("{\"status\":\"success\"}".into())).await, @r#"
    the log source at LOKI answered with something that is not its protocol: missing field `data` at line 1 column 20; it begins with `{"status":"success"}`
    (tries again)
    "#);
    insta::assert_snapshot!(failing(&loki, Fault::Hang).await, @r#"
    cannot reach the log source at LOKI: no answer within 300ms
    (tries again)
    "#);
    insta::assert_snapshot!(failing(&loki, Fault::Cut).await, @r#"
    cannot reach the log source at LOKI: connection closed before message completed
    (tries again)
    "#);
    insta::assert_snapshot!(failing(&loki, Fault::CutBody).await, @r#"
    cannot reach the log source at LOKI: unexpected EOF during chunk size line
    (tries again)
    "#);
}

#[tokio::test]
async fn a_body_without_an_end_is_cut_off() {
    let loki = fake().await;
    loki.faults(|faults| faults.always = vec![(String::new(), Fault::Endless)]);
    let source = builder(&loki.url(), &[QUERY]).timeout(Duration::from_secs(20)).max_body_bytes(1 << 20).build();
    let error = source.expect("a source").read(None, &Default::default(), budget(100)).await.expect_err("an error");
    insta::assert_snapshot!(shown(&error, &loki.url()), @"the log source at LOKI answered with something that is not its protocol: the answer is larger than 1024 KiB");
}

#[tokio::test]
async fn nobody_there() {
    let source = builder("http://127.0.0.1:9", &[QUERY, r#"{job="b"}"#]).build().expect("a source");
    let error = source.read(None, &Default::default(), budget(100)).await.expect_err("an error");
    insta::assert_snapshot!(shown(&error, "URL"), @"cannot reach the log source at http://127.0.0.1:9: Connection refused (os error 111)");
}

#[tokio::test]
async fn a_metric_query_that_looks_like_lines_is_refused() {
    let loki = fake().await;
    let text = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
    insta::assert_snapshot!(failing(&loki, Fault::Garbage(text.into())).await, @r#"
    the query `{job="app"}` cannot be used: Loki answers it with a `matrix` instead of lines
    hint: use a log query; numbers belong to Prometheus
    (permanent)
    "#);
}

#[tokio::test]
async fn no_credential_gets_out() {
    let loki = fake().await;
    let secrets = ["hunter2-password", "hunter2-token", "hunter2-header"];
    for fault in [
        Fault::Status(401, format!("bad credentials {}", secrets.join(" "))),
        Fault::Status(500, format!("you sent {}", secrets.join(" "))),
        Fault::Garbage(secrets.join(" ")),
        Fault::Cut,
    ] {
        loki.faults(|faults| faults.always = vec![(String::new(), fault.clone())]);
        let secret = |i: usize| Credential::Value(secrets[i].to_owned().into());
        let auths = [Auth::Basic { user: "me".into(), password: secret(0) }, Auth::Bearer(secret(1))];
        for (i, auth) in auths.into_iter().enumerate() {
            let source = builder(&loki.url(), &[QUERY]).auth(auth);
            let source = source.header("X-Key", secrets[2].to_owned().into()).build().expect("a source");
            let error = source.read(None, &Default::default(), budget(100)).await.expect_err("an error");
            let all = format!("{} {error:?} {source:?}", chain(&error));
            assert!(!all.contains(secrets[i]) && !all.contains(secrets[2]), "{all}");
        }
    }
    let url = "http://me:hunter2-password@127.0.0.1:9";
    let proxied = builder(url, &[QUERY]).proxy("http://me:hunter2@127.0.0.1:9".to_owned().into());
    let all = format!("{proxied:?} {:?}", proxied.clone().build());
    assert!(!all.contains("hunter2"), "{all}");
    let source = builder(url, &[QUERY]).build().expect("a source");
    let error = source.read(None, &Default::default(), budget(100)).await.expect_err("an error");
    let all = format!("{} {error:?} {source:?} {}", chain(&error), source.id());
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn mistakes_in_the_settings() {
    let url = "http://localhost:3100";
    let build = |url: &str, texts: &[&str]| Loki::builder(url, queries(texts));
    let errors = [
        build("localhost:3100", &[QUERY]).build(),
        build("http://", &[QUERY]).build(),
        build("http://u:secret@host:port", &[QUERY]).build(),
        build("http://localhost:3100/?x=1", &[QUERY]).build(),
        build(url, &[]).build(),
        build(url, &["rate({job=\"a\"}[5m])"]).build(),
        build(url, &["{job=\"a\""]).build(),
        build(url, &[QUERY, QUERY]).build(),
        build(url, &[QUERY]).tenants(vec!["a b".into()]).build(),
        build(url, &[QUERY]).header("bad name", "x".to_owned().into()).build(),
        build(url, &[QUERY]).header("x", "a\nb".to_owned().into()).build(),
        build(url, &[QUERY]).ca_pem(b"nonsense".to_vec()).build(),
        build(url, &[QUERY]).identity_pem("nonsense".to_owned().into()).build(),
        build(url, &[QUERY]).proxy("::".to_owned().into()).build(),
    ];
    let all: Vec<String> = errors.iter().map(|e| shown(e.as_ref().expect_err("a mistake"), "URL")).collect();
    insta::assert_snapshot!(all.join("\n\n"), @r#"
    the LOKI of Loki cannot be used: it does not begin with `http://` or `https://` and a host
    hint: for instance `http://localhost:3100`, or with the path that a gateway adds

    the LOKI of Loki cannot be used: empty host
    hint: for instance `http://localhost:3100`, or with the path that a gateway adds

    the LOKI of Loki cannot be used: invalid port number
    hint: for instance `http://localhost:3100`, or with the path that a gateway adds

    the LOKI of Loki cannot be used: it has a `?` or `#` part
    hint: for instance `http://localhost:3100`, or with the path that a gateway adds

    the list of Loki queries cannot be used: there are 0 of them, and 1 to 64 are possible
    hint: several selectors fit in one: `{job=~"a|b"}`

    the query `rate({job="a"}[5m])` cannot be used: it is not a LogQL log query, which begins with a selector in braces
    hint: for instance `{job="syslog"} |= "error"`; metric queries have no lines

    the query `{job="a"` cannot be used: it is not a LogQL log query, which begins with a selector in braces
    hint: for instance `{job="syslog"} |= "error"`; metric queries have no lines

    the query `{job="app"}` cannot be used: it is listed twice
    hint: list it once, with all its profiles

    the tenant `a b` cannot be used: Loki would refuse it
    hint: a tenant has only letters, digits and `!-_.*'()`, up to 150 of them

    the header `bad name` cannot be used: it has a name that no header can have
    hint: names have letters, digits and dashes; values no line breaks

    the header `x` cannot be used: it has a value that no header can have
    hint: names have letters, digits and dashes; values no line breaks

    the CA certificate cannot be used: it is no PEM
    hint: it begins with `-----BEGIN CERTIFICATE-----`

    the client certificate cannot be used: it is no PEM
    hint: it holds a certificate and its private key, one after the other

    the proxy cannot be used: it is no LOKI
    hint: for instance `http://proxy:3128`
    "#);
}

#[tokio::test]
async fn a_missing_token_file_is_named() {
    let loki = fake().await;
    let auth = Auth::Bearer(Credential::File("/nowhere/token".into()));
    let source = builder(&loki.url(), &[QUERY]).auth(auth).build().expect("a source");
    let error = source.read(None, &Default::default(), budget(100)).await.expect_err("an error");
    insta::assert_snapshot!(shown(&error, &loki.url()), @"cannot read /nowhere/token: No such file or directory (os error 2)");
}
