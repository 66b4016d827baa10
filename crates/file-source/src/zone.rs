//! Time zones, as tables that pure code can use.

use std::sync::Arc;

use jiff::{Timestamp, tz::TimeZone};
use logwarden_core::templates::Zone;

/// No such time zone.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` is not a time zone of this machine's database")]
pub struct ZoneError {
    /// The name.
    pub name: String,
    #[source]
    cause: jiff::Error,
}

/// The time zone with an IANA name, or this machine's own.
///
/// The table reaches from 1990 to 2100.
///
/// # Errors
///
/// When the machine's database does not have it.
pub fn zone(name: Option<&str>) -> Result<Zone, ZoneError> {
    let zone = match name {
        None => TimeZone::system(),
        Some(name) => TimeZone::get(name).map_err(|cause| ZoneError { name: name.to_owned(), cause })?,
    };
    let from = Timestamp::from_second(631_152_000).unwrap_or(Timestamp::UNIX_EPOCH);
    let to = Timestamp::from_second(4_102_444_800).unwrap_or(Timestamp::MAX);
    let mut table = vec![(from.as_second(), zone.to_offset(from).seconds())];
    let changes = zone.following(from).take_while(|change| change.timestamp() < to);
    table.extend(changes.map(|change| (change.timestamp().as_second(), change.offset().seconds())));
    Ok(if table.len() == 1 { Zone::Fixed(table[0].1) } else { Zone::Table(Arc::from(table)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_with_summer_time_changes_its_offset() {
        let berlin = zone(Some("Europe/Berlin")).unwrap();
        assert_eq!(berlin.offset_at(1_792_890_000 - 1), 7200);
        assert_eq!(berlin.offset_at(1_792_890_000), 3600);
        assert_eq!(zone(Some("UTC")).unwrap(), Zone::Fixed(0));
        assert_eq!(
            zone(Some("Mars/Olympus")).unwrap_err().to_string(),
            "`Mars/Olympus` is not a time zone of this machine's database"
        );
    }
}
