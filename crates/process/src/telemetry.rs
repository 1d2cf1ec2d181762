//! Logging, to the standard error output.
//!
//! `MILLPOND_LOG` filters events in the syntax of `tracing_subscriber`'s `EnvFilter` (`debug`,
//! `info,millpond_cache=trace`); `MILLPOND_LOG_FORMAT=json` makes each event one JSON object. Events of libraries
//! that use the `log` crate are included.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Environment variable of the filter.
pub const FILTER: &str = "MILLPOND_LOG";

/// Environment variable of the format: `text` or `json`.
pub const FORMAT: &str = "MILLPOND_LOG_FORMAT";

/// Format of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line of text each.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

/// Defaults of a process's logging.
#[derive(Clone, Debug)]
pub struct TelemetryOptions {
    /// Filter if [`FILTER`] is not set.
    pub default_filter: String,
    /// Format if [`FORMAT`] is not set.
    pub format: Format,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self {
            default_filter: "info".to_owned(),
            format: Format::Text,
        }
    }
}

/// Error of [`init`].
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error("{FILTER}={filter:?} is not a filter like \"info\" or \"info,millpond_cache=debug\"")]
    Filter {
        /// Value of the variable.
        filter: String,
        /// Error of the parser.
        #[source]
        source: ParseError,
    },
    /// The format is unknown.
    #[error("{FORMAT}={format:?} is neither \"text\" nor \"json\"")]
    Format {
        /// Value of the variable.
        format: String,
    },
    /// Logging is set up already.
    #[error("logging was set up twice")]
    Twice,
}

/// Starts logging. Once per process.
///
/// # Errors
/// If the environment has an invalid filter or format.
pub fn init(options: &TelemetryOptions) -> Result<(), TelemetryError> {
    let filter = filter(std::env::var(FILTER).ok(), &options.default_filter)?;
    let format = format(std::env::var(FORMAT).ok(), options.format)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Both include the bridge from the `log` crate.
    match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|_set| TelemetryError::Twice)
}

fn filter(value: Option<String>, default: &str) -> Result<EnvFilter, TelemetryError> {
    let filter = value
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| default.to_owned());
    EnvFilter::try_new(&filter).map_err(|source| TelemetryError::Filter { filter, source })
}

fn format(value: Option<String>, default: Format) -> Result<Format, TelemetryError> {
    match value.as_deref() {
        None | Some("") => Ok(default),
        Some("text") => Ok(Format::Text),
        Some("json") => Ok(Format::Json),
        Some(other) => Err(TelemetryError::Format {
            format: other.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        let error = filter(Some("info,=,=".to_owned()), "info").unwrap_err();
        assert!(error.to_string().contains("MILLPOND_LOG"), "{error}");
    }

    #[test]
    fn without_a_value_the_default_is_used() {
        assert_eq!(filter(None, "warn").unwrap().to_string(), "warn");
        assert_eq!(filter(Some(String::new()), "warn").unwrap().to_string(), "warn");
        assert_eq!(format(None, Format::Json).unwrap(), Format::Json);
    }

    #[test]
    fn an_unknown_format_is_refused() {
        assert_eq!(
            format(Some("json".to_owned()), Format::Text).unwrap(),
            Format::Json
        );
        assert!(format(Some("xml".to_owned()), Format::Text).is_err());
    }
}
