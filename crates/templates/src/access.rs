//! Access logs: one request a line.

use std::borrow::Cow;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Access<'a> {
    /// The method; part of the template. Empty when the request made no sense.
    pub method: &'a [u8],
    /// The path without its query, ids masked as `<*>`; part of the template.
    pub route: Cow<'a, [u8]>,
    /// The request target as it came; a slot.
    pub target: &'a [u8],
    /// The status; the class (`4xx`) is part of the template, the number is a slot.
    pub status: u16,
    /// Who asked.
    pub client: &'a [u8],
    /// The authenticated user.
    pub user: Option<&'a [u8]>,
    /// The name of the server that was asked.
    pub vhost: Option<&'a [u8]>,
    /// The user agent's family (`Chrome`, `curl`, `Googlebot`); a slot.
    pub agent: &'a [u8],
    /// How long it took, as it came.
    pub duration: Option<&'a [u8]>,
    /// The size of the answer, as it came.
    pub size: Option<&'a [u8]>,
}
