//! Parsers of flag values, with errors that give an example.
//!
//! `clap` puts the flag's name in front of each of these messages.

use std::time::Duration;

use bytesize::ByteSize;

/// Largest permission bits.
const ALL_BITS: u16 = 0o777;

/// Parses a number of bytes: `200Gi`, `500GB`, `1048576`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    text.trim()
        .parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_why| "not a size; write for example 200Gi, 1.5TiB or 500GB".to_owned())
}

/// Parses a duration: `10m`, `1h 30m`, `5s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|_why| "not a duration; write for example 30s, 10m or 1h".to_owned())
}

/// Parses a duration that is not zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than zero; write for example 30s or 10m".to_owned()),
        duration => Ok(duration),
    }
}

/// Parses permission bits in octal: `0444`.
pub(super) fn mode(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text.trim_start_matches("0o"), 8)
        .ok()
        .filter(|mode| *mode <= ALL_BITS)
        .ok_or_else(|| "not permission bits; write up to four octal digits, for example 0444".to_owned())
}

/// Parses one of the source's own options: `key=value`.
pub(super) fn option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("not an option; write key=value, for example aws_access_key_id=AKIA123".to_owned()),
    }
}

/// Checks the URL of an endpoint.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text.to_owned()),
        _ => Err("not the URL of a server; write for example https://s3.example.com:9000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_where_they_say_so() {
        assert_eq!(size("200Gi"), Ok(200 << 30));
        assert_eq!(size("200GiB"), Ok(200 << 30));
        assert_eq!(size("1GB"), Ok(1_000_000_000));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("0"), Ok(0));
        assert!(size("many").unwrap_err().contains("200Gi"));
        assert!(size("-1").is_err());
        assert!(size("").is_err());
    }

    #[test]
    fn durations_say_their_unit() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert!(duration("soon").unwrap_err().contains("10m"));
        assert!(duration("10").is_err());
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0444"), Ok(0o444));
        assert_eq!(mode("555"), Ok(0o555));
        assert!(mode("0999").is_err());
        assert!(mode("1777").is_err());
        assert!(mode("rw").is_err());
    }

    #[test]
    fn options_are_pairs() {
        assert_eq!(option("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(option("nonsense").unwrap_err().contains("key=value"));
        assert!(option("=value").is_err());
    }

    #[test]
    fn endpoints_are_urls() {
        assert!(endpoint("http://127.0.0.1:9000").is_ok());
        assert!(endpoint("not a url").is_err());
        assert!(endpoint("ftp://host").is_err());
        assert!(endpoint("host:9000").is_err());
    }
}
