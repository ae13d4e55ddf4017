package dev.scopeward.spring;

import org.springframework.boot.diagnostics.AbstractFailureAnalyzer;
import org.springframework.boot.diagnostics.FailureAnalysis;

/** Shows a {@link NotAskingException} as a description and an action, without a stack trace. */
final class NotAskingFailureAnalyzer extends AbstractFailureAnalyzer<NotAskingException> {
    NotAskingFailureAnalyzer() {}

    @Override
    protected FailureAnalysis analyze(Throwable rootFailure, NotAskingException cause) {
        return new FailureAnalysis(cause.getMessage(), cause.action(), cause);
    }
}
