package dev.scopeward.spring;

import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.beans.factory.SmartInitializingSingleton;
import org.springframework.security.web.SecurityFilterChain;

/** Fails the start of an application whose authorization server would not ask. */
final class Attachments implements SmartInitializingSingleton {
    private final List<Attachment> attachments = new CopyOnWriteArrayList<>();
    private final ObjectProvider<SecurityFilterChain> chains;

    Attachments(ObjectProvider<SecurityFilterChain> chains) {
        this.chains = chains;
    }

    Attachment add(Attachment attachment) {
        attachments.add(attachment);
        return attachment;
    }

    @Override
    public void afterSingletonsInstantiated() {
        // Makes them, if they are lazy.
        long count = chains.stream().count();
        if (attachments.isEmpty()) {
            throw new NotAskingException("Scopeward is not attached to an authorization server: none of the " + count
                    + " security filter chains has an OAuth2AuthorizationServerConfigurer that it was told of",
                    "Build the filter chain from the HttpSecurity bean, or remove scopeward-spring-boot-starter.");
        }
        if (!attachments.stream().allMatch(Attachment::isComplete)) {
            throw new NotAskingException("Scopeward is not attached to the authorization endpoint",
                    "Use the OAuth2AuthorizationEndpointFilter of Spring Security.");
        }
    }
}
