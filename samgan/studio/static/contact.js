// Says so on every page when the studio does not answer, or does not know this browser any more; and when it does again.
"use strict";
(() => {
  const OFTEN = 3000; // milliseconds between two questions while something is wrong
  const SELDOM = 10000;
  const PATIENCE = 20000; // for one answer: the machine may be busy with a training
  const words = document.getElementById("contact");
  const main = document.getElementById("main");
  const clock = () => new Date().toLocaleTimeString();
  let known = clock(); // when the studio last answered
  let lost = false;
  let timer = 0;

  function say(text) {
    const line = text && `${text} What stands here is not newer than ${known}.`;
    const same = words.dataset.text === text; // what is said already is not read aloud again
    words.dataset.text = text;
    if (!same) words.textContent = line;
    words.hidden = !text;
    main.classList.toggle("old", Boolean(text));
  }

  // What is wrong; empty if nothing is. A page that is being left fails too, so a failure counts if it lasts.
  async function trouble() {
    for (let again = true; ; again = false) {
      try {
        const answer = await fetch("/static/icon.svg", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
        return answer.ok ? "" : refusal(answer.status, await answer.text());
      } catch {
        if (!again) break;
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
    }
    return "The studio does not answer. Trainings go on without it. Start samgan studio again, and open the link that it prints.";
  }

  const refusal = (status, text) =>
    text.startsWith("Refused: ") ? text.trim() : `The studio could not do this (error ${status}). Its terminal may say more.`;

  // Parts that ask by themselves have missed what happened meanwhile; one that asks only once would never ask again.
  const renew = () =>
    Promise.allSettled(
      [...main.querySelectorAll("[hx-trigger^='every'], [hx-trigger='load']")].map((part) =>
        htmx.ajax("GET", part.getAttribute("hx-get"), {
          source: part,
          target: part,
          swap: part.getAttribute("hx-swap") ?? "innerHTML",
        }),
      ),
    );

  async function ask() {
    clearTimeout(timer);
    const wrong = await trouble();
    clearTimeout(timer); // another question may have been asked meanwhile
    timer = setTimeout(ask, wrong ? OFTEN : SELDOM);
    if (wrong) {
      lost = true;
      say(wrong);
    } else {
      known = clock();
      if (!lost) return;
      lost = false;
      await renew();
      if (!lost) say("");
    }
  }

  document.addEventListener("htmx:sendError", ask);
  document.addEventListener("htmx:responseError", ({ detail }) => {
    say(refusal(detail.xhr.status, detail.xhr.responseText));
    ask();
  });
  document.addEventListener("htmx:afterRequest", ({ detail }) => {
    if (!detail.successful) return;
    known = clock();
    if (!lost) say("");
  });
  document.addEventListener("samgan:failed", ask); // a question of another script had no answer
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  timer = setTimeout(ask, SELDOM);
})();
