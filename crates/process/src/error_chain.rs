//! An error and its causes, in one line.

use std::error::Error;

/// Returns an error with its causes, the outermost first, for a log line or a response.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to open")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_in_their_order() {
        let error = Outer(std::io::Error::other("no such disk"));
        assert_eq!(with_causes(&error), "failed to open: no such disk");
    }
}
