//! Logging, to the standard error output.
//!
//! `MILLPOND_LOG` says what is logged, in the words of `tracing_subscriber`'s `EnvFilter` (`debug`,
//! `info,millpond_cache=trace`); `MILLPOND_LOG_FORMAT=json` makes each event one JSON object. Libraries that use the
//! `log` crate are heard too.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// What is logged.
pub const FILTER: &str = "MILLPOND_LOG";

/// How it is written: `text` or `json`.
pub const FORMAT: &str = "MILLPOND_LOG_FORMAT";

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line for people each.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

/// How a process logs.
#[derive(Clone, Debug)]
pub struct TelemetryOptions {
    /// The filter where [`FILTER`] is not set.
    pub default_filter: String,
    /// The format where [`FORMAT`] is not set.
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

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("{FILTER}={filter:?} is not a filter like \"info\" or \"info,millpond_cache=debug\"")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// The format is unknown.
    #[error("{FORMAT}={format:?} is neither \"text\" nor \"json\"")]
    Format {
        /// What was given.
        format: String,
    },
    /// The process logs already.
    #[error("logging was set up twice")]
    Twice,
}

/// Starts logging. Once per process.
///
/// # Errors
/// When the environment asks for what there is not.
pub fn init(options: &TelemetryOptions) -> Result<(), TelemetryError> {
    let filter = filter(std::env::var(FILTER).ok(), &options.default_filter)?;
    let format = format(std::env::var(FORMAT).ok(), options.format)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Both bring the bridge from the `log` crate with them.
    match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|_set| TelemetryError::Twice)
}

fn filter(asked: Option<String>, default: &str) -> Result<EnvFilter, TelemetryError> {
    let filter = asked
        .filter(|asked| !asked.is_empty())
        .unwrap_or_else(|| default.to_owned());
    EnvFilter::try_new(&filter).map_err(|source| TelemetryError::Filter { filter, source })
}

fn format(asked: Option<String>, default: Format) -> Result<Format, TelemetryError> {
    match asked.as_deref() {
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
    fn nothing_asked_for_is_the_default() {
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
