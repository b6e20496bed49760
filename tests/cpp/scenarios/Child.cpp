#include "Child.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "Run.h"

namespace scenarios {

Ended inChild(
        unsigned seconds, const std::function<int(std::string& text)>& work) {
    int ends[2];
    require(pipe(ends) == 0, "no pipe");
    fflush(nullptr);
    const pid_t child = fork();
    require(child >= 0, "no process");
    if (child == 0) {
        close(ends[0]);
        dup2(ends[1], STDERR_FILENO);
        alarm(seconds);
        std::string text;
        const int status = work(text);
        size_t written = 0;
        while (written < text.size()) {
            const ssize_t now = write(
                    ends[1], text.data() + written, text.size() - written);
            if (now <= 0) {
                break;
            }
            written += now;
        }
        _exit(status);
    }
    close(ends[1]);
    Ended ended{0, ""};
    char buffer[4096];
    ssize_t got;
    while ((got = read(ends[0], buffer, sizeof(buffer))) > 0) {
        ended.text.append(buffer, got);
    }
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        ended.status = -1;
        ended.text = std::string(
                             WTERMSIG(status) == SIGALRM
                                     ? "does not end"
                                     : strsignal(WTERMSIG(status))) +
                     ": " + ended.text;
    } else {
        ended.status = WEXITSTATUS(status);
    }
    return ended;
}

} // namespace scenarios
