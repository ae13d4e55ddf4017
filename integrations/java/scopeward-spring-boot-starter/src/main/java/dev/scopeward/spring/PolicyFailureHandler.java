package dev.scopeward.spring;

import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpStatus;
import org.springframework.http.server.ServletServerHttpResponse;
import org.springframework.security.core.AuthenticationException;
import org.springframework.security.oauth2.core.http.converter.OAuth2ErrorHttpMessageConverter;
import org.springframework.security.web.authentication.AuthenticationFailureHandler;

/**
 * Answers a {@link PolicyFailureException} with its own status, which the server would make 400, and leaves everything else to the
 * handler of before.
 */
final class PolicyFailureHandler implements AuthenticationFailureHandler {
    private final AuthenticationFailureHandler previous;
    private final OAuth2ErrorHttpMessageConverter converter = new OAuth2ErrorHttpMessageConverter();

    private PolicyFailureHandler(AuthenticationFailureHandler previous) {
        this.previous = previous;
    }

    static AuthenticationFailureHandler around(Object filter) {
        return new PolicyFailureHandler(PrivateField.read(filter, "authenticationFailureHandler"));
    }

    @Override
    public void onAuthenticationFailure(HttpServletRequest request, HttpServletResponse response, AuthenticationException exception)
            throws IOException, ServletException {
        if (!(exception instanceof PolicyFailureException failure)) {
            previous.onAuthenticationFailure(request, response, exception);
            return;
        }
        ServletServerHttpResponse answer = new ServletServerHttpResponse(response);
        answer.setStatusCode(HttpStatus.valueOf(failure.httpStatus()));
        answer.getHeaders().set(HttpHeaders.CACHE_CONTROL, "no-store");
        failure.retryAfterSeconds().ifPresent(seconds -> answer.getHeaders().set(HttpHeaders.RETRY_AFTER, Long.toString(seconds)));
        converter.write(failure.getError(), null, answer);
    }
}
