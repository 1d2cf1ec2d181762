//! Numbers with units: `200Gi`, `10m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a value with a unit is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseQuantityError {
    expected: &'static str,
    found: String,
}

impl fmt::Display for ParseQuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not {}", self.found, self.expected)
    }
}

impl std::error::Error for ParseQuantityError {}

/// A number of bytes in the format of Kubernetes quantities: `200Gi`, `3Ti`, `500M`, `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteQuantity(pub u64);

impl FromStr for ByteQuantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_why| ParseQuantityError {
                expected: "a number of bytes; write for example 200Gi, 3Ti or 500M",
                found: text.to_owned(),
            })
    }
}

impl fmt::Display for ByteQuantity {
    /// Writes the largest binary unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 6] = [
            (60, "Ei"),
            (50, "Pi"),
            (40, "Ti"),
            (30, "Gi"),
            (20, "Mi"),
            (10, "Ki"),
        ];
        let exact = UNITS
            .iter()
            .find(|(shift, _)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match exact {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for ByteQuantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteQuantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for ByteQuantity {
    fn schema_name() -> Cow<'static, str> {
        "ByteQuantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": "^[0-9]+(\\.[0-9]+)?(k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$",
        })
    }
}

/// A length of time: `30s`, `10m`, `1h30m`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_why| ParseQuantityError {
                expected: "a length of time; write for example 30s, 10m or 1h",
                found: text.to_owned(),
            })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without spaces, which the pattern does not allow.
        let text = humantime::format_duration(self.0).to_string();
        f.write_str(&text.replace(' ', ""))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]+(ms|s|m|h|days?|d))+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_kubernetes_writes_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64Gi", 64 << 30),
            ("3Ti", 3 << 40),
            ("500M", 500_000_000),
            ("2k", 2_000),
            ("1.5Gi", 3 << 29),
        ] {
            assert_eq!(text.parse(), Ok(ByteQuantity(bytes)), "{text}");
        }
        for text in ["", "Gi", "-1", "a lot", "1 x"] {
            let error = text.parse::<ByteQuantity>().unwrap_err().to_string();
            assert!(error.contains("200Gi"), "{error}");
        }
    }

    #[test]
    fn written_bytes_parse_to_the_same_number() {
        for bytes in [0, 1, 1000, 1 << 20, 3 << 40, (3 << 40) + 1, u64::MAX] {
            let written = ByteQuantity(bytes).to_string();
            assert_eq!(written.parse(), Ok(ByteQuantity(bytes)), "{written}");
        }
        assert_eq!(ByteQuantity(64 << 30).to_string(), "64Gi");
    }

    #[test]
    fn bytes_may_be_a_bare_number() {
        assert_eq!(
            serde_json::from_str::<ByteQuantity>("1024").unwrap(),
            ByteQuantity(1024)
        );
        assert_eq!(
            serde_json::from_str::<ByteQuantity>("\"1Ki\"").unwrap(),
            ByteQuantity(1024)
        );
    }

    #[test]
    fn spans_are_read_and_written() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("1h30m", 5400), ("7d", 7 * 86_400)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, Span(Duration::from_secs(seconds)));
            assert_eq!(span.to_string().parse(), Ok(span), "{span}");
        }
        assert!("soon".parse::<Span>().is_err());
    }
}
