package dev.scopeward.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.scopeward.testing.UserAgent.Answer;
import dev.scopeward.testing.Tool;
import java.util.Map;

/** What the tests of this package say of answers. */
final class Assert {
    private Assert() {}

    /** The answer has exactly these scopes, in whatever order. */
    static void granted(String scope, Answer answer) {
        assertTrue(answer.status() == 200 || answer.status() == 201, answer.toString());
        assertEquals(Tool.scopes(scope), Tool.scopes(answer));
    }

    /** The answer is this error, in JSON, and nothing of its cause. */
    static void refused(int status, String error, String description, Answer answer) {
        assertEquals(status, answer.status(), answer.body());
        assertEquals(error, answer.json().get("error").getAsString(), answer.body());
        assertEquals(description, answer.json().get("error_description").getAsString());
        assertFalse(answer.body().contains("Exception"), answer.body());
        assertEquals(status == 503 ? "1" : null, answer.retryAfter());
    }

    /** The answer sends the client this error, with its state. */
    static void denied(String error, String description, Answer answer) {
        Map<String, String> parameters = answer.redirected();
        assertEquals(error, parameters.get("error"), answer.location());
        assertEquals(description, parameters.get("error_description"));
        assertTrue(parameters.get("state").startsWith("st-"), answer.location());
        assertNull(parameters.get("code"));
    }
}
