//! An error and what it came from, in one line.

use std::error::Error;

/// An error with its causes, from the outermost to the first, for a log line or an answer.
pub fn with_causes(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        words.push_str(": ");
        words.push_str(&next.to_string());
        cause = next.source();
    }
    words
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
