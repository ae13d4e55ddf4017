package dev.scopeward.keycloak;

import jakarta.ws.rs.core.Response;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jboss.logging.Logger;
import org.keycloak.representations.idm.ClientPolicyExecutorConfigurationRepresentation;
import org.keycloak.services.ErrorResponse;

/**
 * What an administrator of a realm sets in a client profile: {@code audiences}, {@code deadline}, {@code implicit-openid}.
 *
 * <p>Keycloak hands over whatever is in the profile, so everything is checked here. With a setting that is wrong or that there is none of,
 * a profile is refused when it is saved, and one that got there otherwise grants nothing.
 */
public final class ExecutorSettings extends ClientPolicyExecutorConfigurationRepresentation {
    static final String AUDIENCES = "audiences";
    static final String DEADLINE = "deadline";
    static final String IMPLICIT_OPENID = "implicit-openid";

    static final Duration DEFAULT_DEADLINE = Duration.ofMillis(300);
    private static final Duration LONGEST_DEADLINE = Duration.ofSeconds(10);

    private static final Logger LOG = Logger.getLogger(ExecutorSettings.class);
    private static final Pattern DURATION = Pattern.compile("([1-9][0-9]{0,5})(ms|s)");

    /** Is called by Keycloak, which then fills in the profile's members. */
    public ExecutorSettings() {}

    /**
     * Returns {@code true} if all settings are right. Otherwise logs what is wrong and throws it: Keycloak's own answer to {@code false}
     * does not say what is wrong, and an import of a realm would go on without the profile.
     *
     * @return what Keycloak saves a profile by
     */
    @Override
    public boolean validateConfig() {
        List<String> problems = checked().problems;
        if (!problems.isEmpty()) {
            String message = "executor scopeward: " + String.join("; ", problems);
            LOG.error(message);
            throw ErrorResponse.error(message, Response.Status.BAD_REQUEST);
        }
        return true;
    }

    /**
     * The settings as they count.
     *
     * @param audiences asked for where a request names none
     * @param deadline what a question may take
     * @param isOpenidImplicit whether each client holds {@code openid}
     * @param problems what is wrong; empty if nothing is
     */
    record Checked(List<String> audiences, Duration deadline, boolean isOpenidImplicit, List<String> problems) {}

    Checked checked() {
        List<String> problems = new ArrayList<>();
        List<String> audiences = List.of();
        Duration deadline = DEFAULT_DEADLINE;
        boolean isOpenidImplicit = true;
        for (Map.Entry<String, Object> setting : new TreeMap<>(settings()).entrySet()) {
            Object value = setting.getValue();
            switch (setting.getKey()) {
                case AUDIENCES -> {
                    audiences = audiences(value);
                    if (audiences == null) {
                        problems.add("`audiences` is not a list of texts: `" + value + "`");
                    }
                }
                case DEADLINE -> {
                    deadline = deadline(value);
                    if (deadline == null) {
                        problems.add("`deadline` is not a duration such as `300ms` or `1s`, of at most 10 s: `" + value + "`");
                    }
                }
                case IMPLICIT_OPENID -> {
                    isOpenidImplicit = !"false".equals(String.valueOf(value));
                    if (isOpenidImplicit && !"true".equals(String.valueOf(value))) {
                        problems.add("`implicit-openid` is neither `true` nor `false`: `" + value + "`");
                    }
                }
                default -> problems.add("there is no setting `" + setting.getKey() + "`; there are `audiences`, `deadline` and"
                        + " `implicit-openid`, and the server option `target`");
            }
        }
        return new Checked(audiences, deadline, isOpenidImplicit, List.copyOf(problems));
    }

    private Map<String, Object> settings() {
        return getConfigAsMap() == null ? Map.of() : getConfigAsMap();
    }

    private static List<String> audiences(Object value) {
        if (!(value instanceof Collection<?> items) || !items.stream().allMatch(String.class::isInstance)) {
            return null;
        }
        return items.stream().map(String.class::cast).filter(audience -> !audience.isEmpty()).toList();
    }

    private static Duration deadline(Object value) {
        Matcher matcher = DURATION.matcher(String.valueOf(value));
        if (!matcher.matches()) {
            return null;
        }
        long number = Long.parseLong(matcher.group(1));
        Duration deadline = matcher.group(2).equals("s") ? Duration.ofSeconds(number) : Duration.ofMillis(number);
        return deadline.compareTo(LONGEST_DEADLINE) > 0 ? null : deadline;
    }
}
