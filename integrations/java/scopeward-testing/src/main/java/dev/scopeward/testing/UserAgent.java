package dev.scopeward.testing;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.CookieManager;
import java.net.URI;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** A browser with its cookies, and the HTTP client of a tool, over real HTTP. It fills in every form that it meets, with every scope. */
public final class UserAgent {
    /** Where the clients of the tests are sent back to. Nobody listens there. */
    public static final String REDIRECT_URI = "http://127.0.0.1:9/callback";

    private static final Pattern INPUT = Pattern.compile("<input[^>]*>");
    private static final Pattern ATTRIBUTE = Pattern.compile("(name|value|type)=\"([^\"]*)\"");
    private static final Pattern ACTION = Pattern.compile("<form[^>]*action=\"([^\"]*)\"");

    private final HttpClient http = HttpClient.newBuilder().cookieHandler(new CookieManager()).build();
    private final String base;
    private final Map<String, String> credentials;

    /**
     * Opens it.
     *
     * @param base the URL of the server, without a slash at its end
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
         * Reads the parameters of a redirect.
         *
         * @return those of the location, decoded
         */
        public Map<String, String> redirected() {
            if (location == null || !location.startsWith(REDIRECT_URI)) {
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
        Answer answer = get(first);
        String page = first;
        for (int step = 0; step < 10; step++) {
            if (answer.location != null && answer.location.startsWith(REDIRECT_URI)) {
                return answer;
            }
            if (answer.location != null) {
                page = answer.location;
                answer = get(page);
            } else if (answer.status == 200 && answer.body.contains("<form")) {
                Matcher action = ACTION.matcher(answer.body);
                String target = action.find() && !action.group(1).isEmpty() ? plain(action.group(1)) : page;
                answer = post(target.replaceFirst("\\?.*", ""), filled(answer.body), Map.of());
            } else {
                return answer;
            }
        }
        throw new IllegalStateException("too many pages: " + answer);
    }

    private List<Parameter> filled(String page) {
        List<Parameter> form = new ArrayList<>();
        Matcher inputs = INPUT.matcher(page);
        while (inputs.find()) {
            Map<String, String> attributes = new LinkedHashMap<>();
            Matcher matcher = ATTRIBUTE.matcher(inputs.group());
            while (matcher.find()) {
                attributes.put(matcher.group(1), plain(matcher.group(2)));
            }
            String name = attributes.get("name");
            String value = credentials.getOrDefault(name, attributes.get("value"));
            if (name != null && value != null) {
                form.add(new Parameter(name, value));
            }
        }
        return form;
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
        return HttpRequest.newBuilder(URI.create(target.startsWith("http") ? target : base + target));
    }

    private Answer send(HttpRequest request) {
        try {
            var response = http.send(request, BodyHandlers.ofString(StandardCharsets.UTF_8));
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

    private static String encoded(List<Parameter> parameters) {
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
