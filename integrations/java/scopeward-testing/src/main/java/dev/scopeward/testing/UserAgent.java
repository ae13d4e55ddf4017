package dev.scopeward.testing;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * A browser with its cookies, and the HTTP client of a tool, over real HTTP. It fills in every form that it meets, with every scope. One
 * thread uses it.
 */
public final class UserAgent {
    /** Where the clients of the tests are sent back to. Nobody listens there. */
    public static final String REDIRECT_URI = "http://127.0.0.1:9/callback";

    private static final Pattern FORM = Pattern.compile("<form\\b([^>]*)>(.*?)</form>", Pattern.DOTALL);
    private static final Pattern FIELD = Pattern.compile("<(?:input|button)\\b([^>]*)>");
    private static final Pattern ATTRIBUTE = Pattern.compile("([a-zA-Z-]+)\\s*=\\s*\"([^\"]*)\"");
    // What says no in a form, and what outlives a login.
    private static final Set<String> LEFT_OUT = Set.of("cancel", "deny", "rememberMe");

    private final HttpClient http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    // Secure ones as well: browsers send them to loopback without TLS.
    private final Map<String, String> cookies = new LinkedHashMap<>();
    private final String base;
    private final Map<String, String> credentials;

    /**
     * Opens it.
     *
     * @param base the URL of the server, without a slash at its end; may have a path
     * @param credentials what to fill into the form of the login page
     */
    public UserAgent(String base, Map<String, String> credentials) {
        this.base = base;
        this.credentials = Map.copyOf(credentials);
    }

    /**
     * One parameter of a request; the same name may be there several times.
     *
     * @param name its name
     * @param value its value, not encoded
     */
    public record Parameter(String name, String value) {}

    /**
     * What a server answered.
     *
     * @param status of HTTP
     * @param location the header, or null
     * @param retryAfter the header, or null
     * @param body the text
     */
    public record Answer(int status, String location, String retryAfter, String body) {
        /**
         * Reads the body.
         *
         * @return the JSON object
         */
        public JsonObject json() {
            return JsonParser.parseString(body).getAsJsonObject();
        }

        /**
         * Whether it is a redirect to the client.
         *
         * @return {@code false} for a page, and a redirect to elsewhere
         */
        public boolean isRedirected() {
            return location != null && location.startsWith(REDIRECT_URI);
        }

        /**
         * Reads the parameters of a redirect.
         *
         * @return those of the location, decoded
         */
        public Map<String, String> redirected() {
            if (!isRedirected()) {
                throw new IllegalStateException("no redirect to the client: " + this);
            }
            Map<String, String> parameters = new LinkedHashMap<>();
            String query = URI.create(location).getRawQuery();
            for (String pair : query == null ? new String[0] : query.split("&")) {
                String[] parts = pair.split("=", 2);
                parameters.put(decoded(parts[0]), parts.length > 1 ? decoded(parts[1]) : "");
            }
            return parameters;
        }
    }

    /**
     * Makes parameters.
     *
     * @param namesAndValues in turn; null values are left out
     * @return the list
     */
    public static List<Parameter> parameters(String... namesAndValues) {
        List<Parameter> parameters = new ArrayList<>();
        for (int i = 0; i < namesAndValues.length; i += 2) {
            if (namesAndValues[i + 1] != null) {
                parameters.add(new Parameter(namesAndValues[i], namesAndValues[i + 1]));
            }
        }
        return parameters;
    }

    /**
     * Makes parameters.
     *
     * @param values by name
     * @return the list
     */
    public static List<Parameter> parameters(Map<String, String> values) {
        return values.entrySet().stream().map(value -> new Parameter(value.getKey(), value.getValue())).toList();
    }

    /**
     * Opens an authorization request, and whatever pages come after it: signs in, and consents to everything that is offered.
     *
     * @param path of the endpoint
     * @param parameters those of the request
     * @return the redirect to the client, or a page that is an error
     */
    public Answer authorize(String path, List<Parameter> parameters) {
        return open(path + "?" + encoded(parameters));
    }

    /**
     * Opens a page, and whatever pages come after it: signs in, and fills in every form.
     *
     * @param first where to begin
     * @return the redirect to the client, or a page without a form
     */
    public Answer open(String first) {
        return follow(first, get(first));
    }

    /**
     * Sends a form, and opens whatever pages come after it, as {@link #open} does.
     *
     * @param first where to
     * @param form its fields
     * @return the redirect to the client, or a page without a form
     */
    public Answer submit(String first, List<Parameter> form) {
        return follow(first, post(first, form, Map.of()));
    }

    private Answer follow(String first, Answer firstAnswer) {
        String page = absolute(first);
        Answer answer = firstAnswer;
        for (int step = 0; step < 12; step++) {
            if (answer.isRedirected()) {
                return answer;
            }
            Matcher form = FORM.matcher(answer.body);
            if (answer.location != null) {
                page = URI.create(page).resolve(answer.location).toString();
                answer = get(page);
            } else if (answer.status == 200 && form.find()) {
                String action = attributes(form.group(1)).getOrDefault("action", "");
                page = action.isEmpty() ? page.replaceFirst("\\?.*", "") : URI.create(page).resolve(action).toString();
                answer = post(page, filled(form.group(2)), Map.of());
            } else {
                return answer;
            }
        }
        throw new IllegalStateException("too many pages: " + answer);
    }

    private List<Parameter> filled(String form) {
        List<Parameter> fields = new ArrayList<>();
        for (Matcher field = FIELD.matcher(form); field.find();) {
            Map<String, String> attributes = attributes(field.group(1));
            String name = attributes.getOrDefault("name", "");
            String value = credentials.getOrDefault(name, attributes.get("value"));
            if (!name.isEmpty() && value != null && !LEFT_OUT.contains(name)) {
                fields.add(new Parameter(name, value));
            }
        }
        return fields;
    }

    private static Map<String, String> attributes(String tag) {
        Map<String, String> attributes = new LinkedHashMap<>();
        for (Matcher attribute = ATTRIBUTE.matcher(tag); attribute.find();) {
            attributes.put(attribute.group(1), plain(attribute.group(2)));
        }
        return attributes;
    }

    /**
     * Reads a page, as a browser asks for one.
     *
     * @param target a path of the server, or a URL
     * @return the answer; redirects are not followed
     */
    public Answer get(String target) {
        return send(request(target).header("Accept", "text/html").GET().build());
    }

    /**
     * Sends a form.
     *
     * @param target a path of the server, or a URL
     * @param form its fields
     * @param headers more headers
     * @return the answer; redirects are not followed
     */
    public Answer post(String target, List<Parameter> form, Map<String, String> headers) {
        HttpRequest.Builder request = request(target)
                .header("Content-Type", "application/x-www-form-urlencoded")
                .POST(BodyPublishers.ofString(encoded(form)));
        headers.forEach(request::header);
        return send(request.build());
    }

    /**
     * Sends JSON.
     *
     * @param target a path of the server, or a URL
     * @param json the text
     * @param headers more headers
     * @return the answer
     */
    public Answer postJson(String target, String json, Map<String, String> headers) {
        HttpRequest.Builder request =
                request(target).header("Content-Type", "application/json").POST(BodyPublishers.ofString(json));
        headers.forEach(request::header);
        return send(request.build());
    }

    private HttpRequest.Builder request(String target) {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(absolute(target))).timeout(Duration.ofMinutes(2));
        if (!cookies.isEmpty()) {
            request.header("Cookie", cookies.entrySet().stream().map(cookie -> cookie.getKey() + "=" + cookie.getValue())
                    .collect(Collectors.joining("; ")));
        }
        return request;
    }

    private String absolute(String target) {
        return target.startsWith("http") ? target : base + target;
    }

    private Answer send(HttpRequest request) {
        try {
            var response = http.send(request, BodyHandlers.ofString(StandardCharsets.UTF_8));
            for (String cookie : response.headers().allValues("Set-Cookie")) {
                String[] pair = cookie.split(";", 2)[0].split("=", 2);
                cookies.put(pair[0], pair[1]);
            }
            return new Answer(
                    response.statusCode(),
                    response.headers().firstValue("Location").orElse(null),
                    response.headers().firstValue("Retry-After").orElse(null),
                    response.body());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(error);
        }
    }

    /**
     * Encodes parameters for a query or a form.
     *
     * @param parameters what to encode
     * @return such as {@code a=1&b=2}
     */
    public static String encoded(List<Parameter> parameters) {
        List<String> pairs = new ArrayList<>();
        for (Parameter parameter : parameters) {
            pairs.add(parameter.name + "=" + URLEncoder.encode(parameter.value, StandardCharsets.UTF_8).replace("+", "%20"));
        }
        return String.join("&", pairs);
    }

    private static String decoded(String text) {
        return URLDecoder.decode(text, StandardCharsets.UTF_8);
    }

    private static String plain(String html) {
        return html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&#x3D;", "=")
                .replace("&amp;", "&");
    }
}
